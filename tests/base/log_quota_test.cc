#include "base/log_quota.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

namespace migrate {
namespace {

int lines_of(const LogQuota& quota, int attempts) {
  int lines = 0;
  for (int i = 0; i < attempts; ++i) {
    lines += quota.take() ? 1 : 0;
  }
  return lines;
}

TEST(LogQuota, LetsSomeThroughAtOnceAndCountsTheRest) {
  const LogQuota quota = LogQuota::create().value();
  EXPECT_EQ(quota.take(), "");
  EXPECT_EQ(lines_of(quota, 1000), 9);
  sleep(3);
  EXPECT_EQ(quota.take(), " (991 more of this kind were not logged)");
  EXPECT_LE(lines_of(quota, 1000), 1);
}

TEST(LogQuota, IsSharedWithChildren) {
  const LogQuota quota = LogQuota::create().value();
  const pid_t child = fork();
  if (child == 0) {
    _exit(lines_of(quota, 1000));
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), 10);
  EXPECT_FALSE(quota.take());
}

}  // namespace
}  // namespace migrate
