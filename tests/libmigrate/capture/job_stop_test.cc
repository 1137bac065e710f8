// Processes that are frozen in a job control stop, as programs are that start elsewhere.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include "base/file.h"
#include "libmigrate/capture/frozen_process.h"
#include "libmigrate/image/address_space.h"
#include "libmigrate/trace/tracee.h"
#include "tests/libmigrate/capture/captured_process.h"
#include "tests/libmigrate/capture/dying_worker.h"
#include "tests/libmigrate/inspect/held_process.h"

namespace migrate {
namespace {

/// Whether a thread is in such a stop, and not in one of a tracer.
bool is_in_job_stop(pid_t process, const std::string& thread) {
  return read_file("/proc/" + std::to_string(process) + "/task/" + thread + "/status")
             .value_or("")
             .find("State:\tT (stopped)") != std::string::npos;
}

/// A process of two threads, of which one waits, and the other counts. It is stopped.
class FrozenInJobStop : public testing::Test {
 protected:
  void SetUp() override {
    const std::vector<NamedRange> ranges = read_mappings(process_.pid()).value();
    for (const NamedRange& range : ranges) {
      if (range.name == "[vdso]") {
        system_call_ = find_system_call_in(process_.pid(), range.start, range.end).value();
      }
    }
    ASSERT_TRUE(test::comes_true([this] { return *count_ > 0; }));
    ASSERT_EQ(::kill(process_.pid(), SIGSTOP), 0);
    ASSERT_TRUE(comes_to_a_stop());
  }
  ~FrozenInJobStop() override { ::munmap(count_, kPageBytes); }

  bool comes_to_a_stop() const {
    return test::comes_true([this] {
      const auto threads = list_directory("/proc/" + std::to_string(process_.pid()) + "/task");
      return threads && std::ranges::all_of(*threads, [this](const std::string& thread) {
               return is_in_job_stop(process_.pid(), thread);
             });
    });
  }
  bool goes_on() const {
    const std::uint64_t count = *count_;
    return test::comes_true([&] { return *count_ > count; });
  }
  Result<FrozenProcess> freeze(bool starts) const {
    return FrozenProcess::freeze(process_.pid(), system_call_, {}, starts);
  }

  std::atomic<std::uint64_t>* count_ =
      new (::mmap(nullptr, kPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0))
          std::atomic<std::uint64_t>(0);
  test::HeldProcess process_{[this] {
    std::thread([this] {
      for (;;) {
        ++*count_;
      }
    }).detach();
  }};
  std::uint64_t system_call_ = 0;
};

TEST_F(FrozenInJobStop, ItIsRefusedUnlessItIsAskedFor) {
  const auto frozen = freeze(false);
  ASSERT_FALSE(frozen);
  EXPECT_EQ(frozen.error().code, ErrorCode::kRefused);
  EXPECT_TRUE(comes_to_a_stop());
}

// As often as it is tried.
TEST_F(FrozenInJobStop, ThawedItIsStoppedAgainAndHasRunNothing) {
  const std::uint64_t count = *count_;
  for (int attempt = 0; attempt < 10; ++attempt) {
    auto frozen = freeze(true);
    ASSERT_TRUE(frozen) << frozen.error().message();
    ASSERT_TRUE(frozen->open_area(kPageBytes));  // Scripts run in it as in any other.
    ASSERT_TRUE(frozen->thaw());
    ASSERT_TRUE(comes_to_a_stop());
  }
  EXPECT_EQ(*count_, count);
  ASSERT_EQ(::kill(process_.pid(), SIGCONT), 0);
  EXPECT_TRUE(goes_on());
}

// That would stop it where it is moved to, too, and its deputy.
TEST_F(FrozenInJobStop, ThawedNoSignalIsOnItsWayIn) {
  for (int attempt = 0; attempt < 200; ++attempt) {
    auto frozen = freeze(true);
    ASSERT_TRUE(frozen) << frozen.error().message();
    EXPECT_FALSE(is_pending(process_.pid(), SIGSTOP));
    ASSERT_TRUE(frozen->thaw());
  }
}

TEST_F(FrozenInJobStop, IfItsTracerDiesItEndsAndHasRunNothing) {
  const std::uint64_t count = *count_;
  test::DyingWorker worker([this] {
    static auto frozen = freeze(true);
    EXPECT_TRUE(frozen && frozen->open_area(kPageBytes));
    return test::LastWords{};
  });
  EXPECT_FALSE(has_ended(process_.pid()));
  worker.die();
  EXPECT_TRUE(test::comes_true([this] { return has_ended(process_.pid()); }));
  EXPECT_EQ(*count_, count);
}

TEST_F(FrozenInJobStop, NotIfItWasThawedBefore) {
  test::DyingWorker worker([this] {
    EXPECT_TRUE(freeze(true)->thaw());
    return test::LastWords{};
  });
  worker.die();
  EXPECT_TRUE(comes_to_a_stop());
  ASSERT_EQ(::kill(process_.pid(), SIGCONT), 0);
  EXPECT_TRUE(goes_on());
}

// As if it ran another program than when the instruction was looked for.
TEST_F(FrozenInJobStop, NothingIsMadeOfAnInstructionThatIsNoSystemCall) {
  auto frozen = FrozenProcess::freeze(process_.pid(), system_call_ + 1, {}, true);
  ASSERT_TRUE(frozen) << frozen.error().message();
  const auto opened = frozen->open_area(kPageBytes);
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code, ErrorCode::kRetry);
  ASSERT_TRUE(frozen->thaw());
  ASSERT_EQ(::kill(process_.pid(), SIGCONT), 0);
  EXPECT_TRUE(goes_on());
}

TEST_F(FrozenInJobStop, OneThatIsNotStoppedIsFrozenAsEver) {
  ASSERT_EQ(::kill(process_.pid(), SIGCONT), 0);
  ASSERT_TRUE(goes_on());
  auto frozen = freeze(true);
  ASSERT_TRUE(frozen) << frozen.error().message();
  ASSERT_TRUE(frozen->thaw());
  EXPECT_TRUE(goes_on());
}

}  // namespace
}  // namespace migrate
