#include "libmigrate/registry/pid_lock.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>

namespace migrate {
namespace {

class PidLockTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "lockXXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  std::string directory_;
};

TEST_F(PidLockTest, IsHeldByOneAtATime) {
  std::optional<PidLock> first(PidLock::take(directory_, 1234).value());
  const auto second = PidLock::take(directory_, 1234);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, ErrorCode::kRetry);
  EXPECT_NE(second.error().message().find("process 1234"), std::string::npos);
  first.reset();
  EXPECT_TRUE(PidLock::take(directory_, 1234));
}

TEST_F(PidLockTest, IsOfOnePidOnly) {
  const auto one = PidLock::take(directory_, 1234);
  const auto next = PidLock::take(directory_, 1235);
  EXPECT_TRUE(one);
  EXPECT_TRUE(next);
}

TEST_F(PidLockTest, NeedsTheStateDirectory) {
  const auto lock = PidLock::take(directory_ + "/none", 1);
  ASSERT_FALSE(lock);
  EXPECT_NE(lock.error().message().find("/none"), std::string::npos);
}

}  // namespace
}  // namespace migrate
