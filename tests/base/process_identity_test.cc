#include "base/process_identity.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

namespace migrate {
namespace {

/// A child that waits to be killed.
pid_t start_child() {
  const pid_t child = fork();
  if (child == 0) {
    for (;;) {
      pause();
    }
  }
  return child;
}

TEST(ProcessIdentity, StandsForItsProcess) {
  const pid_t child = start_child();
  const ProcessIdentity identity = ProcessIdentity::of(child);
  EXPECT_TRUE(identity.is_alive());
  const auto pidfd = identity.open();
  ASSERT_TRUE(pidfd) << pidfd.error().message();
  EXPECT_TRUE(send_signal(pidfd->get(), SIGKILL));
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(WTERMSIG(status), SIGKILL);
  EXPECT_FALSE(identity.is_alive());
  EXPECT_FALSE(send_signal(pidfd->get(), SIGKILL));
  EXPECT_EQ(identity.open().error().code, ErrorCode::kNotFound);
}

TEST(ProcessIdentity, IsNoLaterProcessWithThePid) {
  const ProcessIdentity later{getpid(), start_time(getpid()) + 1};
  EXPECT_FALSE(later.is_alive());
  EXPECT_EQ(later.open().error().code, ErrorCode::kNotFound);
  EXPECT_FALSE((ProcessIdentity{getpid(), 0}.is_alive()));
}

TEST(ProcessIdentity, OfAZombieIsDead) {
  const pid_t child = start_child();
  const ProcessIdentity identity = ProcessIdentity::of(child);
  kill(child, SIGKILL);
  siginfo_t ended{};
  ASSERT_EQ(waitid(P_PID, static_cast<id_t>(child), &ended, WEXITED | WNOWAIT), 0);
  EXPECT_FALSE(identity.is_alive());
  EXPECT_FALSE(identity.open());
  waitpid(child, nullptr, 0);
}

}  // namespace
}  // namespace migrate
