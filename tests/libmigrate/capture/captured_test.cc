// What a frozen process tells of itself, against what it has set.
#include <gtest/gtest.h>
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <linux/rseq.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/file.h"
#include "libmigrate/capture/capture.h"
#include "libmigrate/capture/critical_section.h"
#include "libmigrate/image/address_space.h"
#include "libmigrate/trace/tracee.h"
#include "tests/libmigrate/capture/captured_process.h"
#include "tests/libmigrate/inspect/held_process.h"

namespace migrate {
namespace {

using test::CapturedProcess;
using test::HeldProcess;
using test::hold_back;

class Captured : public testing::Test {
 protected:
  void SetUp() override {
    if (test::kOfThreadSanitizer) {
      GTEST_SKIP() << "of ThreadSanitizer's own, a process is refused";
    }
  }
  void capture(const std::function<void()>& prepare) {
    process_.emplace(prepare);
    captured_.emplace(pid());
    ASSERT_TRUE(captured_->valid());
  }
  pid_t pid() const { return process_->pid(); }
  const wire::ProcessImage& image() { return captured_->process(); }
  const wire::Thread& leader() { return image().threads(0); }
  /// The codes and reasons of what only the process could tell.
  std::string refusals() const { return test::text(captured_->refusals()); }

  std::optional<HeldProcess> process_;
  std::optional<CapturedProcess> captured_;
};

template <class T>
T value_of(const std::string& bytes) {
  T value{};
  EXPECT_GE(bytes.size(), sizeof(value));
  bytes.copy(reinterpret_cast<char*>(&value), sizeof(value));
  return value;
}

std::uint64_t own_rseq() {
  return reinterpret_cast<std::uint64_t>(__builtin_thread_pointer()) +
         static_cast<std::uint64_t>(__rseq_offset);
}

TEST_F(Captured, WhatTheLeaderHasSetForItself) {
  static std::array<char, 65536> stack{};
  capture([] {
    hold_back({SIGHUP, SIGRTMAX});
    stack_t alternate{};
    alternate.ss_sp = stack.data();
    alternate.ss_size = stack.size();
    ::sigaltstack(&alternate, nullptr);
    ::prctl(PR_SET_PDEATHSIG, SIGINT);
    ::prctl(PR_SET_TIMERSLACK, 123'456);
  });
  EXPECT_EQ(leader().signal_mask(), 1U | std::uint64_t{1} << 63U);
  const auto alternate = value_of<stack_t>(leader().alternate_stack());
  EXPECT_EQ(alternate.ss_sp, stack.data());
  EXPECT_EQ(alternate.ss_size, stack.size());
  EXPECT_EQ(leader().parent_death_signal(), std::uint32_t{SIGINT});
  EXPECT_EQ(leader().timer_slack_ns(), 123'456U);
  EXPECT_EQ(leader().id(), static_cast<std::uint32_t>(pid()));
  EXPECT_NE(leader().robust_list(), 0U);
  EXPECT_EQ(leader().robust_list_length(), 24U);
  EXPECT_NE(leader().clear_child_tid(), 0U);
  if (__rseq_size != 0) {
    EXPECT_EQ(leader().rseq_address(), own_rseq());  // A fork has it where its parent has.
    EXPECT_EQ(leader().rseq_signature(), std::uint32_t{RSEQ_SIG});
  }
  const auto registers = value_of<arch::GeneralRegisters>(leader().general_registers());
  EXPECT_EQ(arch::interrupted_call(registers).number, SYS_pause);
  EXPECT_GE(leader().extended_state().size(), 512U);
  EXPECT_TRUE(captured_->refusals().empty()) << refusals();
}

void handle(int, siginfo_t*, void*) {}

TEST_F(Captured, ActionsOfEverySignal) {
  struct KernelAction {
    void (*handler)(int, siginfo_t*, void*);
    std::uint64_t flags;
    std::uint64_t restorer;
    std::uint64_t mask;
  };
  static_assert(sizeof(KernelAction) == arch::kSignalActionBytes);
  capture([] {
    struct sigaction action {};
    action.sa_sigaction = handle;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    sigaddset(&action.sa_mask, SIGTERM);
    ::sigaction(SIGRTMAX, &action, nullptr);
    ::signal(SIGHUP, SIG_IGN);
    ::signal(SIGUSR1, SIG_DFL);
  });
  const auto action = [&](int signal) {
    return value_of<KernelAction>(image().signal_actions().substr(
        static_cast<std::size_t>(signal - 1) * sizeof(KernelAction), sizeof(KernelAction)));
  };
  EXPECT_EQ(image().signal_actions().size(), 64 * sizeof(KernelAction));
  EXPECT_EQ(action(SIGRTMAX).handler, handle);
  EXPECT_EQ(action(SIGRTMAX).flags & (SA_SIGINFO | SA_NODEFER | SA_RESTART),
            std::uint64_t{SA_SIGINFO | SA_NODEFER});
  EXPECT_EQ(action(SIGRTMAX).mask, std::uint64_t{1} << (SIGTERM - 1U));
  EXPECT_EQ(reinterpret_cast<std::uint64_t>(action(SIGHUP).handler), 1U);
  EXPECT_EQ(action(SIGUSR1).handler, nullptr);
}

TEST_F(Captured, SignalsThatWaitForTheProcessAndForEachThread) {
  capture([] {
    hold_back({SIGUSR1, SIGUSR2, SIGRTMIN});
    for (const int value : {1, 2}) {
      ::sigqueue(::getpid(), SIGRTMIN, sigval{.sival_int = value});
    }
    ::kill(::getpid(), SIGUSR1);
    std::atomic<bool> ready = false;
    std::thread([&ready] {
      ::syscall(SYS_tgkill, ::getpid(), ::syscall(SYS_gettid), SIGUSR2);
      ready = true;
      for (;;) {
        ::pause();
      }
    }).detach();
    while (!ready) {
    }
  });
  std::vector<std::pair<int, int>> of_process;
  for (const std::string& bytes : image().pending_signals()) {
    const auto signal = value_of<siginfo_t>(bytes);
    const bool queued = signal.si_code == SI_QUEUE;
    of_process.emplace_back(signal.si_signo, queued ? signal.si_value.sival_int : 0);
  }
  EXPECT_EQ(of_process,  // As they came.
            (std::vector<std::pair<int, int>>{{SIGRTMIN, 1}, {SIGRTMIN, 2}, {SIGUSR1, 0}}));
  EXPECT_EQ(leader().pending_signals_size(), 0);
  ASSERT_EQ(image().threads_size(), 2);
  ASSERT_EQ(image().threads(1).pending_signals_size(), 1);
  EXPECT_EQ(value_of<siginfo_t>(image().threads(1).pending_signals(0)).si_signo, SIGUSR2);
  // They were looked at, not taken.
  EXPECT_TRUE(is_pending(pid(), SIGUSR1));
  EXPECT_TRUE(is_pending(pid(), SIGRTMIN));
}

TEST_F(Captured, TimersWithWhatIsLeftOfThem) {
  const auto before = static_cast<std::uint64_t>(clock_ns(CLOCK_MONOTONIC));
  capture([] {
    const itimerval of_time{{7, 0}, {1000, 0}};
    const itimerval of_processor{{0, 0}, {500, 1}};
    ::setitimer(ITIMER_REAL, &of_time, nullptr);
    ::setitimer(ITIMER_VIRTUAL, &of_processor, nullptr);
    sigevent event{};
    event.sigev_notify = SIGEV_SIGNAL;
    event.sigev_signo = SIGRTMIN + 2;
    event.sigev_value.sival_int = 31;
    timer_t timer{};
    ::timer_create(CLOCK_BOOTTIME, &event, &timer);
    const itimerspec time{{3, 4}, {2000, 0}};
    ::timer_settime(timer, 0, &time, nullptr);
  });
  ASSERT_EQ(image().interval_timers_size(), 3);
  EXPECT_EQ(image().interval_timers(0).interval_us(), 7'000'000U);
  EXPECT_LE(image().interval_timers(0).value_us(), 1'000'000'000U);
  EXPECT_GT(image().interval_timers(0).value_us(), 900'000'000U);
  EXPECT_GT(image().interval_timers(1).value_us(), 400'000'000U);
  EXPECT_EQ(image().interval_timers(2).value_us(), 0U);
  ASSERT_EQ(image().posix_timers_size(), 1);
  const wire::PosixTimer& timer = image().posix_timers(0);
  EXPECT_EQ(timer.clock(), CLOCK_BOOTTIME);
  EXPECT_EQ(timer.signal(), SIGRTMIN + 2);
  EXPECT_EQ(timer.signal_value() & 0xffffffffU, 31U);
  EXPECT_EQ(timer.interval_ns(), 3'000'000'004U);
  EXPECT_LE(timer.value_ns(), 2000 * std::uint64_t{kNanosecondsPerSecond});
  EXPECT_GT(timer.value_ns(), 1900 * std::uint64_t{kNanosecondsPerSecond});
  EXPECT_GE(image().timers_read_ns(), before);
  EXPECT_LE(image().timers_read_ns(), static_cast<std::uint64_t>(clock_ns(CLOCK_MONOTONIC)));
}

TEST_F(Captured, WhatIsSetForTheWholeProcess) {
  static std::uint64_t own_break = 0;
  capture([] {
    own_break = reinterpret_cast<std::uint64_t>(::sbrk(0));
    ::prctl(PR_SET_DUMPABLE, 0);
    ::prctl(PR_SET_CHILD_SUBREAPER, 1);
    ::prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
    ::syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0, 0);
  });
  std::uint64_t wanted = 0;
  ASSERT_TRUE(read_memory(pid(), reinterpret_cast<std::uint64_t>(&own_break),
                          std::as_writable_bytes(std::span(&wanted, 1))));
  EXPECT_EQ(image().memory().brk(), wanted);
  EXPECT_EQ(image().dumpable(), 0U);
  EXPECT_TRUE(image().child_subreaper());
  EXPECT_EQ(image().thp_disabled(), 1U);
  EXPECT_FALSE(image().locks_future_memory());
  EXPECT_NE(image().barrier_registrations() & MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0U);
}

TEST_F(Captured, WhatIsNotSetIsNot) {
  capture([] {});
  EXPECT_EQ(image().dumpable(), 1U);
  EXPECT_FALSE(image().child_subreaper());
  EXPECT_EQ(image().thp_disabled(), 0U);
  EXPECT_EQ(image().pending_signals_size(), 0);
  EXPECT_EQ(image().posix_timers_size(), 0);
  EXPECT_EQ(leader().wait_remaining_ns(), 0U);
}

TEST_F(Captured, WhatCannotBeCarriedIsRefusedByItsName) {
  capture([] {
    ::prctl(PR_MCE_KILL, PR_MCE_KILL_SET, PR_MCE_KILL_EARLY, 0, 0);
    struct {
      unsigned number = 0, base = 0, limit = 1, flags = 0x41;
    } segment;  // struct user_desc
    ::syscall(SYS_modify_ldt, 1, &segment, sizeof(segment));
    ::prctl(PR_SET_TSC, PR_TSC_SIGSEGV);
  });
  EXPECT_NE(refusals().find("modify_ldt"), std::string::npos) << refusals();
  EXPECT_EQ(refusals().find("PR_MCE_KILL"), std::string::npos) << refusals();  // Carried.
  EXPECT_EQ(refusals().find("PR_SET_TSC"), std::string::npos) << refusals();
  EXPECT_EQ(refusals().find("PR_SET_MEMORY_MERGE"), std::string::npos) << refusals();
  for (const wire::Refusal& refusal : captured_->refusals()) {
    EXPECT_EQ(refusal.code(), "UNKNOWN_ATTRIBUTE");
    EXPECT_EQ(refusal.object(), "thread " + std::to_string(pid()));
  }
}

TEST_F(Captured, PagesThatTheKernelTouchesComeAlong) {
  struct Lock {
    std::uint64_t next;
    std::uint32_t word;
  };
  struct alignas(4096) Page {
    std::uint64_t head[3];  // struct robust_list_head
    Lock lock;
  };
  static Page robust;
  static Page waited;
  capture([] {
    robust.lock.next = reinterpret_cast<std::uint64_t>(robust.head);
    robust.head[0] = reinterpret_cast<std::uint64_t>(&waited.lock);
    waited.lock.next = reinterpret_cast<std::uint64_t>(&robust.lock);
    robust.head[1] = offsetof(Lock, word);
    ::syscall(SYS_set_robust_list, robust.head, sizeof(robust.head));
  });
  std::set<std::uint64_t> pages;
  for (const wire::StarterPage& page : image().starter_pages()) {
    pages.insert(page.address());
    std::string content(kPageBytes, '\0');
    ASSERT_TRUE(read_memory(pid(), page.address(), std::as_writable_bytes(std::span(content))));
    EXPECT_TRUE(content == page.content()) << page.address();
  }
  const auto has = [&](std::uint64_t address) {
    return pages.contains(address & ~(kPageBytes - 1));
  };
  EXPECT_TRUE(has(reinterpret_cast<std::uint64_t>(&robust)));
  EXPECT_TRUE(has(reinterpret_cast<std::uint64_t>(&waited)));
  EXPECT_TRUE(has(leader().clear_child_tid()));
  EXPECT_TRUE(leader().rseq_address() == 0 || has(leader().rseq_address()));
  EXPECT_TRUE(has(image().memory().arg_start()));
  EXPECT_TRUE(has(image().memory().env_start()));
  const auto registers = value_of<arch::GeneralRegisters>(leader().general_registers());
  EXPECT_TRUE(has(arch::stack_pointer(registers)));
}

TEST_F(Captured, AListOfLocksWithoutAnEndIsFollowedOnlySoFar) {
  static std::array<std::uint64_t, 3> list{};
  static std::uint64_t loop = 0;
  capture([] {
    loop = reinterpret_cast<std::uint64_t>(&loop);  // It never comes back to the head.
    list[0] = reinterpret_cast<std::uint64_t>(&loop);
    ::syscall(SYS_set_robust_list, list.data(), sizeof(list));
  });
  EXPECT_EQ(leader().robust_list(), reinterpret_cast<std::uint64_t>(list.data()));
}

/// Freezes without running anything in the process.
FrozenProcess frozen_only(pid_t process) {
  std::uint64_t place = 0;
  const std::vector<NamedRange> ranges = read_mappings(process).value();
  for (const NamedRange& range : ranges) {
    if (range.name == "[vdso]") {
      place = find_system_call_in(process, range.start, range.end).value();
    }
  }
  return FrozenProcess::freeze(process, place, {}).value();
}

TEST_F(Captured, NothingRunsWhereSystemCallsComeBack) {
  constexpr int kDispatch = 59;  // PR_SET_SYSCALL_USER_DISPATCH, Linux 5.11
  static char selector = 0;
  const HeldProcess plain([] {});
  const HeldProcess dispatching([] { ::prctl(kDispatch, 1, 0, 0, &selector); });
  Refusals refusals;
  check_scripts_can_run(frozen_only(plain.pid()), refusals);
  EXPECT_TRUE(refusals.empty());
  check_scripts_can_run(frozen_only(dispatching.pid()), refusals);
  if (refusals.empty()) {
    GTEST_SKIP() << "the kernel does not tell (before Linux 6.4)";
  }
  ASSERT_EQ(refusals.size(), 1U);
  EXPECT_EQ(refusals[0].object(), "thread " + std::to_string(dispatching.pid()));
}

// In the process: threads come and go all the time.
std::atomic<int> born = 0;

[[noreturn]] void make_threads(int) {
  for (;;) {
    std::thread first([] { ++born; });
    std::thread second([] { ++born; });
    first.join();
    second.join();
  }
}

TEST_F(Captured, NoThreadIsForgottenThatIsBornMeanwhile) {
  const HeldProcess process([] { ::signal(SIGTERM, make_threads); });
  const auto count = [&] {
    int value = -1;
    EXPECT_TRUE(read_memory(process.pid(), reinterpret_cast<std::uint64_t>(&born),
                            std::as_writable_bytes(std::span(&value, 1))));
    return value;
  };
  ::kill(process.pid(), SIGTERM);
  for (int round = 0; round < 10; ++round) {
    const int before = count();
    ASSERT_TRUE(test::comes_true([&] { return count() > before + 4; }));
    const FrozenProcess frozen = frozen_only(process.pid());
    std::set<std::string> known;
    for (const FrozenThread& thread : frozen.threads()) {
      known.insert(std::to_string(thread.host_id));
      EXPECT_TRUE(arch::read_registers(thread.host_id)) << "it is not stopped";
    }
    const auto there = list_directory("/proc/" + std::to_string(process.pid()) + "/task").value();
    for (const std::string& thread : there) {
      // One that has ended since may still be listed.
      EXPECT_TRUE(known.contains(thread) || has_ended(std::stoi(thread))) << thread;
    }
    EXPECT_EQ(frozen.leader().host_id, process.pid());
  }
}

TEST_F(Captured, OnlyWhoIsInTheMiddleOfASequenceLeavesIt) {
  if (__rseq_size == 0) {
    GTEST_SKIP() << "the C library uses no restartable sequences";
  }
  static rseq_cs section{};
  const HeldProcess process([] {});
  const FrozenProcess frozen = frozen_only(process.pid());
  const arch::GeneralRegisters before = frozen.leader().registers;
  const std::uint64_t place = arch::instruction_pointer(arch::restarted(before));
  constexpr std::uint64_t kAbort = 0x1234567;
  const auto place_after = [&](std::uint64_t start, std::uint64_t length,
                               std::uint64_t descriptor) {
    const rseq_cs wanted{0, 0, start, length, kAbort};
    const std::uint64_t where = own_rseq() + offsetof(struct rseq, rseq_cs);
    EXPECT_TRUE(write_memory(process.pid(), reinterpret_cast<std::uint64_t>(&section),
                             std::as_bytes(std::span(&wanted, 1))));
    EXPECT_TRUE(write_memory(process.pid(), where, std::as_bytes(std::span(&descriptor, 1))));
    arch::GeneralRegisters registers = before;
    EXPECT_TRUE(leave_critical_section(process.pid(), process.pid(), registers));
    return arch::instruction_pointer(registers);
  };
  const auto known = reinterpret_cast<std::uint64_t>(&section);
  const std::uint64_t unchanged = arch::instruction_pointer(before);
  EXPECT_EQ(place_after(place, 1, known), kAbort);
  EXPECT_EQ(place_after(place - 10, 11, known), kAbort);
  EXPECT_EQ(place_after(place - 10, 10, known), unchanged);  // It is past its end.
  EXPECT_EQ(place_after(place + 1, 100, known), unchanged);
  EXPECT_EQ(place_after(place, 1, 8), unchanged);  // What cannot be read protects nothing.
  EXPECT_EQ(place_after(place, 1, 0), unchanged);
}

}  // namespace
}  // namespace migrate
