#include "libmigrate/capture/capture.h"

#include <linux/membarrier.h>
#include <linux/prctl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <map>
#include <numeric>
#include <optional>
#include <set>

#include "base/clock.h"
#include "libmigrate/arch/arch.h"
#include "libmigrate/image/thread_settings.h"
#include "libmigrate/trace/script_group.h"
#include "libmigrate/trace/tracee.h"
#include "pager/page_range.h"

namespace migrate {
namespace {

// Of one object: its length is what the process says.
constexpr std::uint64_t kMaxStarterBytes = 65536;
constexpr std::uint64_t kMaxPolledBytes = std::uint64_t{8} << 20U;  // fs.nr_open descriptors.
constexpr std::uint64_t kGetRegistrations = 1U << 9U;  // MEMBARRIER_CMD_GET_REGISTRATIONS, 6.3
constexpr std::array<int, 3> kIntervalTimerKinds{ITIMER_REAL, ITIMER_VIRTUAL, ITIMER_PROF};

std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::uint64_t microseconds(const timeval& time) {
  return static_cast<std::uint64_t>(time.tv_sec) * 1'000'000ULL +
         static_cast<std::uint64_t>(time.tv_usec);
}

// A timer has one signal pending at most, which counts what it missed. One that came along with the
// process is another one to the kernel: both are one again.
std::vector<std::string> join_timer_signals(const std::vector<std::string>& signals) {
  std::vector<std::string> joined;
  std::map<int, std::size_t> of_timers;  // by id, where in `joined`
  for (const std::string& signal : signals) {
    siginfo_t information{};
    std::memcpy(&information, signal.data(), std::min(signal.size(), sizeof(information)));
    const bool of_timer = information.si_code == SI_TIMER;
    const auto [place, first] =
        of_timers.emplace(of_timer ? information.si_timerid : -1, joined.size());
    if (!of_timer || first) {
      joined.push_back(signal);
      continue;
    }
    siginfo_t earlier{};
    std::string& text = joined[place->second];
    std::memcpy(&earlier, text.data(), std::min(text.size(), sizeof(earlier)));
    earlier.si_overrun += information.si_overrun + 1;
    text = text_of(std::as_bytes(std::span(&earlier, 1)).first(text.size()));
  }
  return joined;
}

// The calls that every thread answers about itself.
struct ThreadQuestions {
  std::uint64_t tid_address;
  std::uint64_t alternate_stack;
  std::uint64_t death_signal;
  std::size_t timer_slack;

  explicit ThreadQuestions(Script& script)
      : tid_address(script.reserve(8)),
        alternate_stack(script.reserve(sizeof(stack_t))),
        death_signal(script.reserve(4)),
        timer_slack(0) {
    script.must("read the thread id address", SYS_prctl, {PR_GET_TID_ADDRESS, tid_address});
    script.must("read the alternate stack", SYS_sigaltstack, {0, alternate_stack});
    script.must("read the parent death signal", SYS_prctl, {PR_GET_PDEATHSIG, death_signal});
    timer_slack = script.call(SYS_prctl, {PR_GET_TIMERSLACK});
  }

  void answer(const Script& script, wire::Thread& thread) const {
    thread.set_clear_child_tid(script.value<std::uint64_t>(tid_address));
    thread.set_alternate_stack(text_of(script.data(alternate_stack, sizeof(stack_t))));
    thread.set_parent_death_signal(script.value<std::uint32_t>(death_signal));
    if (script.result(timer_slack) > 0) {
      thread.set_timer_slack_ns(static_cast<std::uint64_t>(script.result(timer_slack)));
    }
  }
};

// What a thread, and the leader for the process, may have set for itself: carried if it can be set
// again.
class SettingQuestions {
 public:
  SettingQuestions(Script& script, bool of_process) {
    for (const arch::Setting& setting : kThreadSettings) {
      ask(script, setting);
    }
    if (of_process) {
      for (const arch::Setting& setting : arch::kProcessSettings) {
        ask(script, setting);
      }
    }
  }

  void answer(const Script& script, wire::Thread& thread, Refusals& refusals) const {
    thread.clear_settings();
    for (const Asked& asked : asked_) {
      const std::int64_t result = script.result(asked.call);
      const std::int64_t value = result < 0 ? asked.common  // This kernel does not have it.
                                 : asked.value == 0
                                     ? result
                                     : std::int64_t{script.value<std::int32_t>(asked.value)};
      if (asked.carried) {
        thread.add_settings(value);
      } else if (value != asked.common) {
        refusals.push_back(
            make_refusal("UNKNOWN_ATTRIBUTE", "thread " + std::to_string(thread.id()), asked.name));
      }
    }
  }

 private:
  static constexpr std::uint64_t kBufferBytes = 8;

  struct Asked {
    const char* name;
    std::size_t call;
    std::uint64_t value;  // where the call puts it; 0: it is the result
    std::int64_t common;
    bool carried;
  };

  void ask(Script& script, const arch::Setting& setting) {
    using Answer = arch::Setting::Answer;
    const std::uint64_t place =
        setting.answer == Answer::kResult ? 0 : script.reserve(kBufferBytes);
    const std::uint64_t length = setting.answer == Answer::kLength ? kBufferBytes : 0;
    asked_.push_back({setting.name,
                      script.call(setting.call, {setting.first_argument, place, length, 0, 0}),
                      setting.answer == Answer::kWord ? place : 0, setting.common_result,
                      setting.setter.call >= 0});
  }

  std::vector<Asked> asked_;
};

// The calls that the leader answers about the whole process.
struct ProcessQuestions {
  std::uint64_t actions;
  std::uint64_t interval_timers;
  std::uint64_t posix_timers;
  std::uint64_t subreaper;
  std::size_t dumpable;
  std::size_t thp_disabled;
  std::size_t merges_memory;
  std::size_t secure_bits;
  std::size_t program_break;
  std::size_t barriers;
  std::uint64_t resident;
  std::size_t fresh_page;

  ProcessQuestions(Script& script, const wire::ProcessImage& image)
      : actions(script.reserve(arch::kSignals * arch::kSignalActionBytes)),
        interval_timers(script.reserve(kIntervalTimerKinds.size() * sizeof(itimerval))),
        posix_timers(script.reserve(sizeof(itimerspec) *
                                    static_cast<std::size_t>(image.posix_timers_size()))),
        subreaper(script.reserve(4)),
        resident(script.reserve(1)) {
    for (std::uint64_t signal = 1; signal <= arch::kSignals; ++signal) {
      script.must("read a signal action", SYS_rt_sigaction,
                  {signal, 0, actions + (signal - 1) * arch::kSignalActionBytes, 8},
                  "signal " + std::to_string(signal));
    }
    for (const int timer : kIntervalTimerKinds) {
      script.must("read an interval timer", SYS_getitimer,
                  {static_cast<std::uint64_t>(timer),
                   interval_timers + static_cast<std::uint64_t>(timer) * sizeof(itimerval)});
    }
    std::uint64_t place = posix_timers;
    for (const wire::PosixTimer& timer : image.posix_timers()) {
      script.must("read a POSIX timer", SYS_timer_gettime, {timer.id(), place},
                  "timer " + std::to_string(timer.id()));
      place += sizeof(itimerspec);
    }
    script.must("read the subreaper flag", SYS_prctl, {PR_GET_CHILD_SUBREAPER, subreaper});
    dumpable = script.call(SYS_prctl, {PR_GET_DUMPABLE});
    thp_disabled = script.call(SYS_prctl, {PR_GET_THP_DISABLE});
    merges_memory = script.call(SYS_prctl, {kGetMemoryMerge});
    secure_bits = script.call(SYS_prctl, {PR_GET_SECUREBITS});
    program_break = script.call(SYS_brk, {0});
    barriers = script.call(SYS_membarrier, {kGetRegistrations, 0, 0});
    // A page mapped anew is there at once only where what is mapped is locked (mlockall).
    const std::uint64_t page = script.spare_page();
    fresh_page = script.call(SYS_mmap, {page, kPageBytes, PROT_READ | PROT_WRITE | PROT_EXEC,
                                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, ~0ULL, 0});
    script.call(SYS_mincore, {page, kPageBytes, resident});
  }

  void answer(const Script& script, wire::ProcessImage& image) const {
    image.set_signal_actions(
        text_of(script.data(actions, arch::kSignals * arch::kSignalActionBytes)));
    image.clear_interval_timers();
    for (std::size_t i = 0; i < kIntervalTimerKinds.size(); ++i) {
      const auto value = script.value<itimerval>(interval_timers + i * sizeof(itimerval));
      auto& timer = *image.add_interval_timers();
      timer.set_value_us(microseconds(value.it_value));
      timer.set_interval_us(microseconds(value.it_interval));
    }
    std::uint64_t place = posix_timers;
    for (wire::PosixTimer& timer : *image.mutable_posix_timers()) {
      const auto value = script.value<itimerspec>(place);
      timer.set_value_ns(to_nanoseconds(value.it_value));
      timer.set_interval_ns(to_nanoseconds(value.it_interval));
      place += sizeof(itimerspec);
    }
    image.set_child_subreaper(script.value<std::uint32_t>(subreaper) != 0);
    image.set_dumpable(static_cast<std::uint32_t>(script.result(dumpable)));
    image.set_thp_disabled(
        static_cast<std::uint32_t>(std::max<std::int64_t>(script.result(thp_disabled), 0)));
    image.set_merges_memory(script.result(merges_memory) > 0);
    // Or not at all, for the limit of what may be locked.
    image.set_locks_future_memory((script.value<std::uint8_t>(resident) & 1U) != 0 ||
                                  script.result(fresh_page) == -EAGAIN);
    // Before Linux 6.3 the kernel does not tell: most that register ask for private barriers.
    const std::int64_t registered = script.result(barriers);
    image.set_barrier_registrations(registered >= 0
                                        ? static_cast<std::uint32_t>(registered)
                                        : std::uint32_t{MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED});
    image.mutable_memory()->set_brk(static_cast<std::uint64_t>(script.result(program_break)));
    for (wire::Thread& thread : *image.mutable_threads()) {
      thread.mutable_credentials()->set_secure_bits(
          static_cast<std::uint32_t>(script.result(secure_bits)));
    }
  }
};

// A wait that has begun goes on where it was: the destination starts what is left of it where the
// kernel keeps such calls in a restart block; others are repeated whole, or are over.
Result<void> capture_wait(const FrozenProcess& frozen, const FrozenThread& thread,
                          const std::vector<WaitRecord>& waits, std::int64_t now_ns,
                          arch::GeneralRegisters& registers, wire::Thread& image) {
  const arch::InterruptedCall call = arch::interrupted_call(registers);
  if (!call.restart_block && !arch::is_repeated(registers)) {
    return {};
  }
  const auto remaining =
      MIGRATE_TRY(remaining_wait(frozen.process(), thread.id, call, waits, now_ns));
  if (remaining && *remaining == 0 && !call.restart_block) {
    arch::complete_call(registers, timeout_result(call.number));
  } else if (remaining) {
    image.set_wait_remaining_ns(std::max<std::uint64_t>(*remaining, 1));
  } else if (call.restart_block) {
    arch::repeat_call(registers);
  }
  return {};
}

// What the tracer reads without the thread's help.
Result<void> capture_thread(const FrozenProcess& frozen, const FrozenThread& thread,
                            const std::vector<WaitRecord>& waits, std::int64_t now_ns,
                            wire::Thread& image) {
  image.set_id(thread.id);
  arch::GeneralRegisters registers = thread.registers;
  if (arch::is_restarted_call(registers)) {
    constexpr std::uint64_t kCodeBytes = 32;
    std::array<std::byte, kCodeBytes> before{};
    static_cast<void>(
        read_memory(frozen.process(), arch::instruction_pointer(registers) - kCodeBytes, before));
    const auto wait = std::find_if(waits.begin(), waits.end(), [&](const WaitRecord& other) {
      return other.thread == thread.id;
    });
    if (wait != waits.end()) {
      arch::name_restarted_call(registers, wait->number);
    } else {
      arch::name_restarted_call(registers, before);
    }
  }
  MIGRATE_TRY(capture_wait(frozen, thread, waits, now_ns, registers, image));
  image.set_general_registers(text_of(std::as_bytes(std::span(&registers, 1))));
  image.set_extended_state(MIGRATE_TRY(arch::read_extended_state(thread.host_id)));
  image.set_signal_mask(thread.signal_mask);
  for (std::string& signal : join_timer_signals(MIGRATE_TRY(peek_signals(thread.host_id, false)))) {
    image.add_pending_signals(std::move(signal));
  }
  const RseqConfiguration rseq = MIGRATE_TRY(read_rseq(thread.host_id));
  image.set_rseq_address(rseq.address);
  image.set_rseq_length(rseq.length);
  image.set_rseq_signature(rseq.signature);
  std::uint64_t head = 0;
  std::size_t length = 0;
  if (::syscall(SYS_get_robust_list, thread.host_id, &head, &length) != 0) {
    return fail(system_error("read the robust list of", "thread " + std::to_string(thread.id)));
  }
  image.set_robust_list(head);
  image.set_robust_list_length(length);
  return {};
}

// What only the threads themselves can tell; the first of them for the whole process.
Result<void> ask_threads(const FrozenProcess& frozen, std::span<const ScriptThread> threads,
                         std::span<wire::Thread* const> images, wire::ProcessImage& image,
                         Refusals& refusals) {
  struct Asked {
    ThreadQuestions of_thread;
    SettingQuestions settings;
    std::optional<ProcessQuestions> of_process;
  };
  std::vector<std::optional<Asked>> asked(threads.size());
  return run_scripts(
      frozen.area(), threads,
      [&](std::size_t i, Script& script) -> Result<void> {
        asked[i].emplace(Asked{ThreadQuestions(script), SettingQuestions(script, i == 0), {}});
        if (i == 0) {
          asked[i]->of_process.emplace(script, image);
        }
        return {};
      },
      [&](std::size_t i, const Script& script) {
        asked[i]->of_thread.answer(script, *images[i]);
        asked[i]->settings.answer(script, *images[i], refusals);
        if (asked[i]->of_process) {
          asked[i]->of_process->answer(script, image);
        }
      });
}

// Addresses of a thread's robust list: its head, the locks in it (their futex words too), and the
// one being taken. Bounded as the kernel bounds it (ROBUST_LIST_LIMIT).
std::vector<std::uint64_t> robust_entries(pid_t process, std::uint64_t head) {
  constexpr std::size_t kLimit = 2048;
  struct Head {
    std::uint64_t next;
    std::int64_t futex_offset;
    std::uint64_t pending;
  } list{};
  std::vector<std::uint64_t> entries;
  if (head == 0 || !read_memory(process, head, std::as_writable_bytes(std::span(&list, 1)))) {
    return entries;
  }
  const auto add = [&](std::uint64_t entry) {
    entries.push_back(entry);
    entries.push_back(entry + static_cast<std::uint64_t>(list.futex_offset));
  };
  entries.push_back(head);
  if (list.pending != 0) {
    add(list.pending & ~1ULL);
  }
  std::uint64_t entry = list.next & ~1ULL;  // Bit 0 marks a PI futex.
  while (entry != head && entries.size() < 2 * kLimit) {
    add(entry);
    if (!read_memory(process, entry, std::as_writable_bytes(std::span(&entry, 1)))) {
      break;
    }
    entry &= ~1ULL;
  }
  return entries;
}

}  // namespace

void check_scripts_can_run(const FrozenProcess& frozen, Refusals& refusals) {
  for (const FrozenThread& thread : frozen.threads()) {
    if (dispatches_calls(thread.host_id)) {
      refusals.push_back(make_refusal("UNKNOWN_ATTRIBUTE", "thread " + std::to_string(thread.id),
                                      "its system calls come back to it "
                                      "(PR_SET_SYSCALL_USER_DISPATCH)"));
    }
  }
}

Result<void> capture_state(FrozenProcess& frozen, const std::vector<WaitRecord>& waits,
                           wire::ProcessImage& image, Refusals& refusals) {
  if (image.threads_size() != static_cast<int>(frozen.threads().size())) {
    return fail(make_error(ErrorCode::kRetry, "capture the threads of",
                           "process " + std::to_string(frozen.process()),
                           "its threads changed meanwhile; try again"));
  }
  std::vector<wire::Thread*> images;
  std::vector<ScriptThread> threads;
  for (const FrozenThread& thread : frozen.threads()) {
    const auto found =
        std::find_if(image.mutable_threads()->begin(), image.mutable_threads()->end(),
                     [&](const wire::Thread& other) { return other.id() == thread.id; });
    if (found == image.mutable_threads()->end()) {
      return fail(make_error(ErrorCode::kRetry, "capture", "thread " + std::to_string(thread.id),
                             "the threads changed meanwhile; try again"));
    }
    images.push_back(&*found);
    threads.push_back({thread.host_id, thread.registers, thread.signal_mask});
  }
  // First: a signal that a script takes is sent again, and pending then.
  MIGRATE_TRY(ask_threads(frozen, threads, images, image, refusals));
  // After the last timer was read, so that none ends too early.
  const std::int64_t now_ns = clock_ns(CLOCK_MONOTONIC);
  image.set_timers_read_ns(static_cast<std::uint64_t>(now_ns));
  for (std::size_t i = 0; i < images.size(); ++i) {
    MIGRATE_TRY(capture_thread(frozen, frozen.threads()[i], waits, now_ns, *images[i]));
  }
  for (std::string& signal :
       join_timer_signals(MIGRATE_TRY(peek_signals(frozen.leader().host_id, true)))) {
    image.add_pending_signals(std::move(signal));
  }
  const int signals = std::accumulate(
      image.threads().begin(), image.threads().end(), image.pending_signals_size(),
      [](int sum, const wire::Thread& thread) { return sum + thread.pending_signals_size(); });
  if (signals > kMostPendingSignals) {
    refusals.push_back(make_refusal(
        "SIGNALS_PENDING",
        std::to_string(signals) + " signals; at most " + std::to_string(kMostPendingSignals)));
  }
  return {};
}

Result<void> capture_starter_pages(const FrozenProcess& frozen, wire::ProcessImage& image) {
  std::set<std::uint64_t> pages;
  const auto need = [&pages](std::uint64_t address, std::uint64_t length,
                             std::uint64_t limit = kMaxStarterBytes) {
    const std::uint64_t end = address + std::min(length, limit);
    for (std::uint64_t page = address & ~(kPageBytes - 1); address != 0 && page < end;
         page += kPageBytes) {
      pages.insert(page);
    }
  };
  for (const wire::Thread& thread : image.threads()) {
    need(thread.rseq_address(), thread.rseq_length());
    need(thread.clear_child_tid(), sizeof(std::uint32_t));
    for (const std::uint64_t entry : robust_entries(frozen.process(), thread.robust_list())) {
      need(entry, sizeof(std::uint64_t));
    }
  }
  // What the kernel writes when a wait is interrupted, as the destination does once it has begun
  // anew: with a signal pending it would not wait for the page, but ask again and again.
  for (const wire::Thread& thread : image.threads()) {
    arch::GeneralRegisters registers{};
    thread.general_registers().copy(reinterpret_cast<char*>(&registers), sizeof(registers));
    const arch::InterruptedCall call = arch::interrupted_call(registers);
    if (call.number == SYS_futex) {
      need(call.arguments[0], sizeof(std::uint32_t));
      need(call.arguments[4], sizeof(std::uint32_t));
    } else if (arch::is_poll(call.number)) {
      need(call.arguments[0], call.arguments[1] * sizeof(pollfd), kMaxPolledBytes);
    }
    need(remaining_address(call), sizeof(timespec));
    for (const auto& [address, length] : memory_of_wait(call)) {
      need(address, length);
    }
  }
  const wire::MemoryMap& memory = image.memory();
  need(memory.arg_start(), memory.arg_end() - memory.arg_start());
  need(memory.env_start(), memory.env_end() - memory.env_start());
  need(arch::stack_pointer(frozen.leader().registers), 1);
  std::array<std::byte, kPageBytes> content;
  for (const std::uint64_t page : pages) {
    // A page that cannot be read (a stack pointer that is none) is simply not sent ahead.
    if (read_memory(frozen.process(), page, content)) {
      auto& starter = *image.add_starter_pages();
      starter.set_address(page);
      starter.set_content(text_of(content));
    }
  }
  return {};
}

}  // namespace migrate
