#include "libmigrate/capture/timed_wait.h"

#include <gtest/gtest.h>
#include <linux/futex.h>
#include <sys/sem.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <initializer_list>
#include <string>

#include "base/clock.h"
#include "base/file.h"
#include "libmigrate/image/address_space.h"
#include "libmigrate/image/only_process.h"
#include "tests/libmigrate/capture/captured_process.h"
#include "tests/libmigrate/inspect/held_process.h"

namespace migrate {
namespace {

constexpr timespec kTime{1, 500'000'000};
constexpr std::uint64_t kTimeNs = 1'500'000'000;

std::uint64_t at(const void* place) {
  return reinterpret_cast<std::uint64_t>(place);
}

arch::InterruptedCall call_of(std::int64_t number, std::initializer_list<std::uint64_t> arguments,
                              bool restart_block = true) {
  arch::InterruptedCall call{.restart_block = restart_block, .number = number};
  std::copy(arguments.begin(), arguments.end(), std::begin(call.arguments));
  return call;
}

/// The timeout of a call of this process.
std::optional<std::uint64_t> timeout(std::int64_t number,
                                     std::initializer_list<std::uint64_t> arguments) {
  return relative_timeout(::getpid(), call_of(number, arguments)).value();
}

TEST(TimedWait, KnowsTheTimeoutOfEachCall) {
  EXPECT_EQ(timeout(SYS_poll, {0, 0, 1500}), kTimeNs);
  EXPECT_EQ(timeout(SYS_epoll_wait, {3, 0, 1, 1500}), kTimeNs);
  EXPECT_EQ(timeout(SYS_epoll_pwait, {3, 0, 1, 1500}), kTimeNs);
  EXPECT_EQ(timeout(SYS_epoll_pwait2, {3, 0, 1, at(&kTime)}), kTimeNs);
  EXPECT_EQ(timeout(SYS_nanosleep, {at(&kTime)}), kTimeNs);
  EXPECT_EQ(timeout(SYS_clock_nanosleep, {CLOCK_MONOTONIC, 0, at(&kTime)}), kTimeNs);
  EXPECT_EQ(timeout(SYS_futex, {0, FUTEX_WAIT, 0, at(&kTime)}), kTimeNs);
  EXPECT_EQ(timeout(SYS_futex, {0, FUTEX_WAIT_PRIVATE, 0, at(&kTime)}), kTimeNs);
  EXPECT_EQ(timeout(SYS_rt_sigtimedwait, {0, 0, at(&kTime), 8}), kTimeNs);
  EXPECT_EQ(timeout(SYS_semtimedop, {0, 0, 0, at(&kTime)}), kTimeNs);
  EXPECT_EQ(timeout(SYS_io_getevents, {0, 0, 0, 0, at(&kTime)}), kTimeNs);
}

TEST(TimedWait, KnowsWhichWaitForEverOrUntilAnAbsoluteTime) {
  EXPECT_EQ(timeout(SYS_poll, {0, 0, ~0ULL}), std::nullopt);
  EXPECT_EQ(timeout(SYS_poll, {0, 0, 0xffffffff}), std::nullopt);  // An int, whatever is above.
  EXPECT_EQ(timeout(SYS_poll, {0, 0, 0xabcd000000000000}), 0U);
  EXPECT_EQ(timeout(SYS_epoll_wait, {3, 0, 1, ~0ULL}), std::nullopt);
  EXPECT_EQ(timeout(SYS_clock_nanosleep, {CLOCK_MONOTONIC, TIMER_ABSTIME, at(&kTime)}),
            std::nullopt);
  EXPECT_EQ(timeout(SYS_futex, {0, FUTEX_WAIT, 0, 0}), std::nullopt);
  EXPECT_EQ(timeout(SYS_futex, {0, FUTEX_WAIT_BITSET, 0, at(&kTime)}), std::nullopt);
  EXPECT_EQ(timeout(SYS_futex, {0, FUTEX_LOCK_PI, 0, at(&kTime)}), std::nullopt);
  EXPECT_EQ(timeout(SYS_rt_sigtimedwait, {0, 0, 0, 8}), std::nullopt);
  // The kernel itself tells these what is left.
  EXPECT_EQ(timeout(SYS_pselect6, {0, 0, 0, 0, at(&kTime)}), std::nullopt);
  EXPECT_EQ(timeout(SYS_ppoll, {0, 0, at(&kTime)}), std::nullopt);
  EXPECT_EQ(timeout(SYS_read, {0, 0, 0}), std::nullopt);
}

TEST(TimedWait, ATimeThatCannotBeReadIsAnError) {
  EXPECT_FALSE(relative_timeout(::getpid(), call_of(SYS_nanosleep, {8})));
  EXPECT_FALSE(remaining_wait(::getpid(), 1, call_of(SYS_nanosleep, {at(&kTime), 8}), {}, 0));
}

TEST(TimedWait, OnlyASleepThatGoesOnSaysWhereWhatIsLeftIsWritten) {
  EXPECT_EQ(remaining_address(call_of(SYS_nanosleep, {1, 2, 3, 4})), 2U);
  EXPECT_EQ(remaining_address(call_of(SYS_clock_nanosleep, {1, 2, 3, 4})), 4U);
  EXPECT_EQ(remaining_address(call_of(SYS_futex, {1, 2, 3, 4})), 0U);
  EXPECT_EQ(remaining_address(call_of(SYS_nanosleep, {1, 2, 3, 4}, false)), 0U);
}

/// What is left of a wait of thread 7 at 1000.
std::optional<std::uint64_t> left(const arch::InterruptedCall& call,
                                  const std::vector<WaitRecord>& records) {
  return remaining_wait(::getpid(), 7, call, records, 1000).value();
}

TEST(TimedWait, WhatIsLeftIsToldByTheKernelOrByTheRecordOfThisVeryWait) {
  const timespec written{0, 42};
  EXPECT_EQ(left(call_of(SYS_nanosleep, {at(&kTime), at(&written)}), {}), 42U);
  EXPECT_EQ(left(call_of(SYS_nanosleep, {at(&kTime), 0}), {}), kTimeNs);  // It tells nobody.
  const arch::InterruptedCall poll = call_of(SYS_poll, {1, 2, 1500, 4, 5, 6});
  const WaitRecord record{
      .thread = 7, .number = SYS_poll, .arguments = {1, 2, 1500, 4, 5, 6}, .deadline_ns = 1700};
  EXPECT_EQ(left(poll, {record}), 700U);
  WaitRecord other = record;
  other.deadline_ns = 900;  // It is over.
  EXPECT_EQ(left(poll, {other}), 0U);
  EXPECT_EQ(left(call_of(SYS_poll, {1, 2, ~0ULL, 4, 5, 6}), {record}), std::nullopt);
  other = record;
  other.thread = 8;
  EXPECT_EQ(left(poll, {other}), kTimeNs);
  EXPECT_EQ(left(poll, {other, record}), 700U);
  other = record;
  other.number = SYS_futex;
  EXPECT_EQ(left(poll, {other}), kTimeNs);
  other = record;
  other.arguments[5] = 0;
  EXPECT_EQ(left(poll, {other}), kTimeNs);
}

TEST(TimedWait, MemoryOfAWaitIsWhatTheKernelReadsAgain) {
  using Memory = std::vector<std::pair<std::uint64_t, std::uint64_t>>;
  EXPECT_EQ(memory_of_wait(call_of(SYS_rt_sigtimedwait, {1, 2, 3})), (Memory{{1, 8}, {3, 16}}));
  EXPECT_EQ(memory_of_wait(call_of(SYS_epoll_pwait, {1, 2, 3, 4, 5})), (Memory{{5, 8}}));
  EXPECT_EQ(memory_of_wait(call_of(SYS_epoll_pwait2, {1, 2, 3, 4, 5})), (Memory{{4, 16}, {5, 8}}));
  EXPECT_EQ(memory_of_wait(call_of(SYS_semtimedop, {1, 2, 3, 4})),
            (Memory{{2, 3 * sizeof(sembuf)}, {4, 16}}));
  EXPECT_EQ(memory_of_wait(call_of(SYS_semtimedop, {1, 2, ~0ULL, 4}))[0].second,
            512 * sizeof(sembuf));
  EXPECT_EQ(memory_of_wait(call_of(SYS_io_getevents, {1, 2, 3, 4, 5})), (Memory{{5, 16}}));
  EXPECT_EQ(memory_of_wait(call_of(SYS_read, {1, 2, 3})), Memory());
}

TEST(TimedWait, ACallWhoseTimeIsOverSaysSoInItsOwnWay) {
  EXPECT_EQ(timeout_result(SYS_rt_sigtimedwait), -EAGAIN);
  EXPECT_EQ(timeout_result(SYS_semtimedop), -EAGAIN);
  EXPECT_EQ(timeout_result(SYS_futex), -ETIMEDOUT);
  EXPECT_EQ(timeout_result(SYS_poll), 0);
  EXPECT_EQ(timeout_result(SYS_epoll_wait), 0);
  EXPECT_EQ(timeout_result(SYS_io_getevents), 0);
}

/// A process that sleeps by calls of the same arguments, one after the other.
class WaitRecords : public testing::Test {
 protected:
  void SetUp() override {
    if (test::kOfThreadSanitizer) {
      GTEST_SKIP() << "ThreadSanitizer holds signals back, and calls by them";
    }
    ::kill(process_.pid(), SIGTERM);
    EXPECT_TRUE(test::comes_true([this] { return is_in({SYS_nanosleep}); }));
  }
  static void sleep_on_and_on(int) {
    sigset_t all;
    sigemptyset(&all);
    ::sigprocmask(SIG_SETMASK, &all, nullptr);
    static const timespec kLong{100'000, 0};
    for (;;) {
      ::syscall(SYS_nanosleep, &kLong, nullptr);
    }
  }

  static void wait_until_a_time(int) {
    static const timespec kLate{4'000'000'000, 0};  // Of CLOCK_MONOTONIC.
    static std::uint32_t word = 0;
    ::syscall(SYS_futex, &word, FUTEX_WAIT_BITSET_PRIVATE, 0, &kLate, nullptr,
              FUTEX_BITSET_MATCH_ANY);
  }
  void stop_and_continue() const {
    ::kill(process_.pid(), SIGSTOP);
    int status = 0;
    ASSERT_EQ(::waitpid(process_.pid(), &status, WUNTRACED), process_.pid());
    ASSERT_TRUE(WIFSTOPPED(status));
    ::kill(process_.pid(), SIGCONT);
    ASSERT_TRUE(test::comes_true([this] { return is_in({SYS_restart_syscall}); }));
  }

  bool is_in(std::initializer_list<int> calls) const {
    const std::string path = "/proc/" + std::to_string(process_.pid()) + "/syscall";
    const std::string call = read_file(path).value_or("");
    return std::any_of(calls.begin(), calls.end(),
                       [&](int number) { return call.starts_with(std::to_string(number) + " "); });
  }
  FrozenProcess freeze() const {
    const std::vector<NamedRange> ranges = read_mappings(process_.pid()).value();
    std::uint64_t place = 0;
    for (const NamedRange& range : ranges) {
      if (range.name == "[vdso]") {
        place = find_system_call_in(process_.pid(), range.start, range.end).value();
      }
    }
    return FrozenProcess::freeze(process_.pid(), place, {}).value();
  }
  /// As if it came here now with 1000 s of its sleep left, and went on.
  std::vector<WaitRecord> arrive() {
    FrozenProcess frozen = freeze();
    wire::ProcessImage image;
    wire::Thread& thread = *image.add_threads();
    thread.set_id(frozen.leader().id);
    thread.set_wait_remaining_ns(1000 * std::uint64_t{kNanosecondsPerSecond});
    const arch::GeneralRegisters& registers = frozen.leader().registers;
    thread.set_general_registers(&registers, sizeof(registers));
    const std::vector<WaitRecord> records = record_waits(image, {process_.pid()});
    EXPECT_TRUE(frozen.thaw());
    EXPECT_TRUE(test::comes_true([this] { return is_in({SYS_restart_syscall}); }));
    return records;
  }

  test::HeldProcess process_{[] {
    test::count({SIGUSR1});
    ::signal(SIGTERM, sleep_on_and_on);
    ::signal(SIGUSR2, wait_until_a_time);
  }};
};

TEST_F(WaitRecords, OfAWaitThatGoesOnAreKept) {
  const std::int64_t before = clock_ns(CLOCK_MONOTONIC);
  const std::vector<WaitRecord> records = arrive();
  ASSERT_EQ(records.size(), 1U);
  EXPECT_EQ(records[0].number, SYS_nanosleep);
  EXPECT_EQ(records[0].thread, static_cast<std::uint32_t>(process_.pid()));
  EXPECT_GE(records[0].deadline_ns, before + 1000 * kNanosecondsPerSecond);
  const FrozenProcess frozen = freeze();
  const std::vector<WaitRecord> still = waits_that_go_on(frozen, records);
  ASSERT_EQ(still.size(), 1U);
  EXPECT_EQ(still[0].deadline_ns, records[0].deadline_ns);
}

// Before it has come to block again, or even to run.
TEST_F(WaitRecords, AreKeptHoweverSoonItIsStoppedAgain) {
  std::vector<WaitRecord> records = arrive();
  ASSERT_EQ(records.size(), 1U);
  const std::int64_t deadline_ns = records[0].deadline_ns;
  for (int stop = 0; stop < 300; ++stop) {
    FrozenProcess frozen = freeze();
    const std::vector<WaitRecord> still = waits_that_go_on(frozen, records);
    ASSERT_EQ(still.size(), 1U) << "at stop " << stop;
    records = record_waits(frozen, still);
    ASSERT_EQ(records.size(), 1U);
    EXPECT_EQ(records[0].deadline_ns, deadline_ns);
    ASSERT_TRUE(frozen.thaw());
  }
}

TEST_F(WaitRecords, OfAWaitAfterwardsWithTheSameArgumentsAreNot) {
  const std::vector<WaitRecord> records = arrive();
  ::kill(process_.pid(), SIGUSR1);  // Ends the sleep, and the next one begins.
  ASSERT_TRUE(test::comes_true(
      [this] { return test::counted(process_.pid(), SIGUSR1) == 1 && is_in({SYS_nanosleep}); }));
  const FrozenProcess frozen = freeze();
  EXPECT_TRUE(waits_that_go_on(frozen, records).empty());
}

TEST_F(WaitRecords, AreKeptOverAJobControlStop) {
  std::vector<WaitRecord> records = arrive();
  stop_and_continue();
  const FrozenProcess frozen = freeze();
  EXPECT_EQ(waits_that_go_on(frozen, records).size(), 1U);
  records[0].deadline_ns = clock_ns(CLOCK_MONOTONIC);  // It is over: this one is another.
  EXPECT_TRUE(waits_that_go_on(frozen, records).empty());
}

TEST_F(WaitRecords, OfAnInterruptedWaitWithOtherArgumentsAreNot) {
  std::vector<WaitRecord> records = arrive();
  records[0].arguments[1] += 1;
  const FrozenProcess frozen = freeze();
  EXPECT_TRUE(waits_that_go_on(frozen, records).empty());
}

TEST_F(WaitRecords, KnowTheNumberOfACallWithAnAbsoluteTime) {
  ::kill(process_.pid(), SIGUSR2);
  ASSERT_TRUE(test::comes_true([this] { return is_in({SYS_futex}); }));
  std::vector<WaitRecord> records;
  {
    const FrozenProcess frozen = freeze();
    records = record_waits(frozen, {});
    ASSERT_EQ(records.size(), 1U);
    EXPECT_EQ(records[0].number, SYS_futex);
  }
  ASSERT_TRUE(test::comes_true([this] { return is_in({SYS_restart_syscall}); }));
  const FrozenProcess frozen = freeze();
  EXPECT_EQ(waits_that_go_on(frozen, records).size(), 1U);
}

TEST_F(WaitRecords, OfAThreadThatIsGoneAreNot) {
  std::vector<WaitRecord> records = arrive();
  records[0].thread += 1'000'000;
  const FrozenProcess frozen = freeze();
  EXPECT_TRUE(waits_that_go_on(frozen, records).empty());
}

TEST(RecordWaits, OnlyThoseOfWhichSomethingIsLeft) {
  wire::ProcessImage image;
  image.add_threads()->set_general_registers(std::string(sizeof(arch::GeneralRegisters), '\0'));
  EXPECT_TRUE(record_waits(image, {::getpid()}).empty());
  image.mutable_threads(0)->set_wait_remaining_ns(5);
  EXPECT_EQ(record_waits(image, {::getpid()}).size(), 1U);
}

}  // namespace
}  // namespace migrate
