#include "libmigrate/park/internal/parking.h"

#include <linux/rseq.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>

#include <algorithm>

#include "base/clock.h"

namespace migrate {
namespace {

constexpr std::uint64_t kRobustListBytes = 24;

itimerspec to_itimerspec(std::uint64_t value_ns, std::uint64_t interval_ns) {
  return {to_timespec(interval_ns), to_timespec(value_ns)};
}

itimerval to_itimerval(std::uint64_t value_us, std::uint64_t interval_us) {
  constexpr std::uint64_t kSecond = 1'000'000;
  return {
      {static_cast<time_t>(interval_us / kSecond), static_cast<suseconds_t>(interval_us % kSecond)},
      {static_cast<time_t>(value_us / kSecond), static_cast<suseconds_t>(value_us % kSecond)}};
}

}  // namespace

const wire::Thread* find_thread(const wire::ProcessImage& image, std::uint32_t id) {
  const auto found = std::find_if(image.threads().begin(), image.threads().end(),
                                  [&](const wire::Thread& thread) { return thread.id() == id; });
  return found == image.threads().end() ? nullptr : &*found;
}

arch::GeneralRegisters idle_registers(const arch::GeneralRegisters& own, const ScriptArea& area) {
  return arch::script_registers(own, area.code() + arch::interpreter_code().idle_offset, 0);
}

void script_untie(Script& script, const wire::Thread& thread) {
  if (thread.rseq_address() != 0) {
    script.must("unregister rseq", SYS_rseq,
                {thread.rseq_address(), thread.rseq_length(), RSEQ_FLAG_UNREGISTER,
                 thread.rseq_signature()});
  }
  script.must("drop the robust list", SYS_set_robust_list, {0, kRobustListBytes});
  script.call(SYS_set_tid_address, {0});
}

void script_tie(Script& script, const wire::Thread& thread) {
  script.call(SYS_set_tid_address, {thread.clear_child_tid()});
  script.call(SYS_set_robust_list, {thread.robust_list(), kRobustListBytes});
  if (thread.rseq_address() != 0) {
    script.call(SYS_rseq,
                {thread.rseq_address(), thread.rseq_length(), 0, thread.rseq_signature()});
  }
}

void script_action(Script& script, const wire::ProcessImage* image) {
  std::string action(arch::kSignalActionBytes, '\0');
  if (image != nullptr) {
    action = image->signal_actions().substr((arch::kScriptSignal - 1) * arch::kSignalActionBytes,
                                            arch::kSignalActionBytes);
  }
  script.call(SYS_rt_sigaction, {static_cast<std::uint64_t>(arch::kScriptSignal),
                                 script.put(std::as_bytes(std::span(action))), 0, 8});
}

std::vector<std::string> captured_signals(const wire::ProcessImage& image) {
  std::vector<std::string> signals(image.pending_signals().begin(), image.pending_signals().end());
  signals.insert(signals.end(), image.threads(0).pending_signals().begin(),
                 image.threads(0).pending_signals().end());
  return signals;
}

bool is_of_timer(const std::string& signal) {
  siginfo_t information{};
  signal.copy(reinterpret_cast<char*>(&information), sizeof(information));
  const int number = information.si_signo;
  return information.si_code == SI_TIMER ||
         (information.si_code == SI_KERNEL &&
          (number == SIGALRM || number == SIGVTALRM || number == SIGPROF));
}

void script_timers(Script& script, const wire::ProcessImage& image, bool armed) {
  std::uint64_t which = ITIMER_REAL;
  for (const wire::IntervalTimer& timer : image.interval_timers()) {
    // One that expired shows no remaining time, and starts again when its signal is taken.
    if (timer.value_us() != 0 || timer.interval_us() != 0) {
      const itimerval value = to_itimerval(armed ? timer.value_us() : 0, timer.interval_us());
      script.must("set an interval timer", SYS_setitimer, {which, script.put_value(value), 0});
    }
    ++which;
  }
  for (const wire::PosixTimer& timer : image.posix_timers()) {
    const itimerspec value = to_itimerspec(armed ? timer.value_ns() : 0, timer.interval_ns());
    script.must("set a POSIX timer", SYS_timer_settime,
                {timer.id(), 0, script.put_value(value), 0});
  }
}

}  // namespace migrate
