#include "libmigrate/move/childless_moment.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>
#include <utility>
#include <vector>

#include "libmigrate/proc/children.h"

namespace migrate {
namespace {

using std::chrono::milliseconds;

/// A child of the thread that makes it.
class Child {
 public:
  Child() {
    pid_ = ::fork();
    if (pid_ == 0) {
      for (;;) {
        ::pause();
      }
    }
  }
  ~Child() { end(); }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  void end() {
    if (pid_ > 0) {
      ::kill(pid_, SIGKILL);
      ::waitpid(std::exchange(pid_, 0), nullptr, 0);
    }
  }
  pid_t pid() const { return pid_; }

 private:
  pid_t pid_ = 0;
};

TEST(ChildlessMoment, IsNotWaitedForByWhoHasNone) {
  EXPECT_TRUE(children_of(::getpid()).empty());
  EXPECT_TRUE(await_childless_moment(::getpid(), milliseconds(60'000), []() -> Result<void> {
    return fail(make_error(ErrorCode::kCancelled, "wait", "test"));
  }));
}

TEST(ChildlessMoment, ComesWhenTheChildOfAnyThreadHasEnded) {
  std::thread([] {
    Child child;
    EXPECT_EQ(children_of(::getpid()), std::vector<pid_t>{child.pid()});
    int asked = 0;
    EXPECT_TRUE(await_childless_moment(::getpid(), milliseconds(60'000), [&]() -> Result<void> {
      if (++asked == 3) {
        child.end();
      }
      return {};
    }));
    EXPECT_EQ(asked, 3);
  }).join();
}

TEST(ChildlessMoment, IsGivenUpWhenItIsNotWantedOrDoesNotCome) {
  const Child child;
  const auto waited = await_childless_moment(
      ::getpid(), milliseconds(60'000),
      []() -> Result<void> { return fail(make_error(ErrorCode::kCancelled, "wait", "test")); });
  ASSERT_FALSE(waited);
  EXPECT_EQ(waited.error().code, ErrorCode::kCancelled);
  EXPECT_TRUE(
      await_childless_moment(::getpid(), milliseconds(5), []() -> Result<void> { return {}; }));
  EXPECT_FALSE(children_of(::getpid()).empty());
}

}  // namespace
}  // namespace migrate
