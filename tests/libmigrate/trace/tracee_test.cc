#include "libmigrate/trace/tracee.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <optional>

namespace migrate {
namespace {

/// A process that waits in one system call.
class TraceeTest : public testing::Test {
 protected:
  void SetUp() override {
    process_ = ::fork();
    if (process_ == 0) {
      for (;;) {
        ::pause();
      }
    }
    ASSERT_GT(process_, 0);
    ASSERT_TRUE(seize(process_));
  }
  void TearDown() override {
    ::kill(process_, SIGKILL);
    ::waitpid(process_, nullptr, __WALL);
  }

  /// Its next stop within `milliseconds`, if there is one.
  std::optional<Stop> next_stop(int milliseconds) const {
    for (int look = 0; look < milliseconds; ++look) {
      siginfo_t told{};
      if (::waitid(P_PID, static_cast<id_t>(process_), &told,
                   WEXITED | WSTOPPED | WNOHANG | WNOWAIT | __WALL) == 0 &&
          told.si_pid != 0) {
        return wait_stop(process_).value();
      }
      ::usleep(1000);
    }
    return std::nullopt;
  }

  pid_t process_ = -1;
};

// A first thread that was just making another when it was asked to stop hung the freeze, a few
// times in a thousand. The stop at the end of a system call does the same, each time.
TEST_F(TraceeTest, AnInterruptOutlivesAStopForAnotherReason) {
  constexpr int kLongMs = 10'000;
  constexpr int kShortMs = 100;
  ASSERT_TRUE(interrupt(process_));
  for (auto stop = next_stop(kLongMs); stop; stop = next_stop(kShortMs)) {
    ASSERT_TRUE(resume_to_call(process_));  // At last it waits in its call.
  }
  ASSERT_TRUE(interrupt(process_));
  auto stop = next_stop(kLongMs);
  ASSERT_TRUE(stop);
  ASSERT_EQ(stop->event, 0);  // The call has ended, interrupted.
  ASSERT_TRUE(resume_to_interrupt(process_));
  stop = next_stop(kLongMs);
  ASSERT_TRUE(stop);
  EXPECT_EQ(stop->event, PTRACE_EVENT_STOP);
}

TEST_F(TraceeTest, WhatIsKilledIsEndingUntilNobodyKnowsOfIt) {
  EXPECT_FALSE(is_dying(process_));
  EXPECT_FALSE(is_ending(process_));
  ::kill(process_, SIGKILL);
  EXPECT_TRUE(is_dying(process_));
  EXPECT_TRUE(is_ending(process_));
  ::waitpid(process_, nullptr, __WALL);
  EXPECT_FALSE(is_dying(process_));
  EXPECT_TRUE(is_ending(process_));
}

}  // namespace
}  // namespace migrate
