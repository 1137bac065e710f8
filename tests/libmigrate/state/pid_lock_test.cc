#include "libmigrate/state/pid_lock.h"

#include <gtest/gtest.h>

#include <chrono>
#include <optional>
#include <string>
#include <thread>

#include "tests/transport/temporary_directory.h"

namespace migrate {
namespace {

TEST(PidLock, IsHeldByOneAtATime) {
  const test::TemporaryDirectory state;
  std::optional<PidLock> first(PidLock::take(state.path(), 1234).value());
  const auto second = PidLock::take(state.path(), 1234);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, ErrorCode::kRetry);
  EXPECT_NE(second.error().message().find("process 1234"), std::string::npos);
  first.reset();
  EXPECT_TRUE(PidLock::take(state.path(), 1234));
}

TEST(PidLock, IsWaitedForWhileItsHolderEnds) {
  const test::TemporaryDirectory state;
  std::optional<PidLock> first(PidLock::take(state.path(), 1234).value());
  std::thread holder([&first] {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    first.reset();
  });
  EXPECT_TRUE(PidLock::take(state.path(), 1234));
  holder.join();
}

TEST(PidLock, IsOfOnePidOnly) {
  const test::TemporaryDirectory state;
  const auto one = PidLock::take(state.path(), 1234);
  const auto next = PidLock::take(state.path(), 1235);
  EXPECT_TRUE(one);
  EXPECT_TRUE(next);
}

TEST(PidLock, NeedsTheStateDirectory) {
  const test::TemporaryDirectory state;
  const auto lock = PidLock::take(state.file("none"), 1);
  ASSERT_FALSE(lock);
  EXPECT_NE(lock.error().message().find("/none"), std::string::npos);
}

}  // namespace
}  // namespace migrate
