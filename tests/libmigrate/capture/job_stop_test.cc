// Processes that are frozen in a job control stop, as programs are that start elsewhere.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <string>

#include "base/file.h"
#include "libmigrate/capture/frozen_process.h"
#include "libmigrate/image/address_space.h"
#include "tests/libmigrate/capture/captured_process.h"

namespace migrate {
namespace {

/// A process that counts, and is stopped.
class JobStopTest : public testing::Test {
 protected:
  void SetUp() override {
    void* const shared =
        ::mmap(nullptr, kPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(shared, MAP_FAILED);
    count_ = new (shared) std::atomic<std::uint64_t>(0);
    process_ = ::fork();
    if (process_ == 0) {
      for (;;) {
        ++*count_;
      }
    }
    ASSERT_GT(process_, 0);
    for (const NamedRange& range : read_mappings(process_).value()) {
      if (range.name == "[vdso]") {
        system_call_ = find_system_call_in(process_, range.start, range.end).value();
      }
    }
    ASSERT_EQ(::kill(process_, SIGSTOP), 0);
    ASSERT_EQ(::waitpid(process_, nullptr, WUNTRACED), process_);
  }
  void TearDown() override {
    ::kill(process_, SIGKILL);
    ::waitpid(process_, nullptr, __WALL);
    ::munmap(count_, kPageBytes);
  }

  bool is_in_job_stop() const {
    return read_file("/proc/" + std::to_string(process_) + "/status")
               .value_or("")
               .find("State:\tT (stopped)") != std::string::npos;
  }

  pid_t process_ = -1;
  std::uint64_t system_call_ = 0;
  std::atomic<std::uint64_t>* count_ = nullptr;
};

TEST_F(JobStopTest, ItIsRefusedUnlessItIsAskedFor) {
  const auto frozen = FrozenProcess::freeze(process_, system_call_, {});
  ASSERT_FALSE(frozen);
  EXPECT_EQ(frozen.error().code, ErrorCode::kRefused);
  EXPECT_TRUE(test::comes_true([this] { return is_in_job_stop(); }));
}

// As often as it is tried.
TEST_F(JobStopTest, ThawedItIsStoppedAgainAndHasRunNothing) {
  const std::uint64_t count = *count_;
  for (int attempt = 0; attempt < 20; ++attempt) {
    auto frozen = FrozenProcess::freeze(process_, system_call_, {}, true);
    ASSERT_TRUE(frozen) << frozen.error().message();
    ASSERT_TRUE(frozen->open_area(kPageBytes));
    EXPECT_FALSE(is_in_job_stop());  // Scripts run in it as in any other.
    ASSERT_TRUE(frozen->thaw());
    EXPECT_TRUE(test::comes_true([this] { return is_in_job_stop(); }));
  }
  EXPECT_EQ(*count_, count);
  ASSERT_EQ(::kill(process_, SIGCONT), 0);
  EXPECT_TRUE(test::comes_true([&] { return *count_ > count; }));
}

TEST_F(JobStopTest, OneThatIsNotStoppedIsFrozenAsEver) {
  ASSERT_EQ(::kill(process_, SIGCONT), 0);
  ASSERT_TRUE(test::comes_true([this] { return !is_in_job_stop(); }));
  auto frozen = FrozenProcess::freeze(process_, system_call_, {}, true);
  ASSERT_TRUE(frozen) << frozen.error().message();
  const std::uint64_t count = *count_;
  ASSERT_TRUE(frozen->thaw());
  EXPECT_TRUE(test::comes_true([&] { return *count_ > count; }));
}

}  // namespace
}  // namespace migrate
