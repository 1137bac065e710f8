#include "libmigrate/move/childless_moment.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "libmigrate/proc/children.h"
#include "tests/libmigrate/inspect/held_process.h"

namespace migrate {
namespace {

using std::chrono::milliseconds;
using test::HeldProcess;

TEST(ChildlessMoment, IsNotWaitedForByWhoHasNone) {
  EXPECT_TRUE(children_of(::getpid()).value().empty());
  EXPECT_TRUE(await_childless_moment(::getpid(), milliseconds(60'000), []() -> Result<void> {
    return fail(make_error(ErrorCode::kCancelled, "wait", "test"));
  }));
}

TEST(ChildlessMoment, ComesWhenTheChildOfAnyThreadHasEnded) {
  std::thread([] {
    std::optional<HeldProcess> child(std::in_place, [] {});
    EXPECT_EQ(children_of(::getpid()).value(), std::vector<pid_t>{child->pid()});
    int asked = 0;
    EXPECT_TRUE(await_childless_moment(::getpid(), milliseconds(60'000), [&]() -> Result<void> {
      if (++asked == 3) {
        child.reset();
      }
      return {};
    }));
    EXPECT_EQ(asked, 3);
  }).join();
}

TEST(ChildlessMoment, IsGivenUpWhenItIsNotWantedOrDoesNotCome) {
  const HeldProcess child([] {});
  const auto waited = await_childless_moment(
      ::getpid(), milliseconds(60'000),
      []() -> Result<void> { return fail(make_error(ErrorCode::kCancelled, "wait", "test")); });
  ASSERT_FALSE(waited);
  EXPECT_EQ(waited.error().code, ErrorCode::kCancelled);
  EXPECT_TRUE(
      await_childless_moment(::getpid(), milliseconds(5), []() -> Result<void> { return {}; }));
  EXPECT_FALSE(children_of(::getpid()).value().empty());
}

}  // namespace
}  // namespace migrate
