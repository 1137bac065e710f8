#include "base/crash_report.h"

#include <execinfo.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <charconv>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace migrate {
namespace {

constexpr std::size_t kStackBytes = std::size_t{64} * 1024;
constexpr int kMostCalls = 64;
constexpr unsigned kPatienceSeconds = 3;

alignas(16) std::array<char, kStackBytes> alternate_stack;
std::atomic<const char*> program_name{""};

/// A line of text, put together without the heap or a lock.
class Line {
 public:
  Line& operator<<(std::string_view text) {
    const std::size_t count = std::min(text.size(), text_.size() - length_);
    std::memcpy(text_.data() + length_, text.data(), count);
    length_ += count;
    return *this;
  }
  Line& add(std::uint64_t number, int base, std::size_t width = 0) {
    std::array<char, 20> digits{};
    const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), number, base).ptr;
    const std::string_view text(digits.data(), static_cast<std::size_t>(end - digits.data()));
    for (std::size_t filled = text.size(); filled < width; ++filled) {
      *this << "0";
    }
    return *this << text;
  }
  void write() const { (void)!::write(STDERR_FILENO, text_.data(), length_); }

 private:
  std::array<char, 512> text_{};
  std::size_t length_ = 0;
};

/// UTC: the zone's table is not to be read here.
void add_time(Line& line) {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  constexpr std::int64_t kDay = 86'400;
  const std::int64_t days = now.tv_sec / kDay;
  // Days to a date, years beginning in March (Howard Hinnant, "chrono-compatible date algorithms").
  const std::int64_t shifted = days + 719'468;
  const std::int64_t era = shifted / 146'097;
  const std::int64_t of_era = shifted - era * 146'097;
  const std::int64_t year = (of_era - of_era / 1'460 + of_era / 36'524 - of_era / 146'096) / 365;
  const std::int64_t of_year = of_era - (365 * year + year / 4 - year / 100);
  const std::int64_t month_from_march = (5 * of_year + 2) / 153;
  const std::int64_t day = of_year - (153 * month_from_march + 2) / 5 + 1;
  const std::int64_t month = month_from_march < 10 ? month_from_march + 3 : month_from_march - 9;
  const auto of_day = static_cast<std::uint64_t>(now.tv_sec % kDay);
  const auto add = [&line](std::int64_t number, std::size_t width) -> Line& {
    return line.add(static_cast<std::uint64_t>(number), 10, width);
  };
  add(year + era * 400 + (month <= 2 ? 1 : 0), 4) << "-";
  add(month, 2) << "-";
  add(day, 2) << " ";
  line.add(of_day / 3'600, 10, 2) << ":";
  line.add(of_day / 60 % 60, 10, 2) << ":";
  line.add(of_day % 60, 10, 2) << "Z";
}

/// If the unwinder waits for a lock that this thread itself held when it broke, that must not keep
/// the process from ending.
void end_by_alarm() {
  ::signal(SIGALRM, SIG_DFL);
  sigset_t alarm;
  sigemptyset(&alarm);
  sigaddset(&alarm, SIGALRM);
  ::pthread_sigmask(SIG_UNBLOCK, &alarm, nullptr);
  ::alarm(kPatienceSeconds);
}

void report(int signal, siginfo_t* information, void* /*context*/) {
  Line line;
  add_time(line);
  line << " critical " << program_name.load() << "[";
  line.add(static_cast<std::uint64_t>(::getpid()), 10) << "] ended by signal ";
  const char* const name = ::sigabbrev_np(signal);
  line.add(static_cast<std::uint64_t>(signal), 10) << " (SIG" << (name != nullptr ? name : "?");
  line << "), code ";
  if (information->si_code < 0) {
    line << "-";
  }
  const std::int64_t code = information->si_code;
  line.add(static_cast<std::uint64_t>(code < 0 ? -code : code), 10);
  if (information->si_code <= 0) {
    line << ", sent by pid ";
    line.add(static_cast<std::uint64_t>(information->si_pid), 10);
  } else {
    line << ", address 0x";
    line.add(reinterpret_cast<std::uintptr_t>(information->si_addr), 16);
  }
  line << ", thread ";
  line.add(static_cast<std::uint64_t>(::syscall(SYS_gettid)), 10) << "; calls:\n";
  line.write();
  end_by_alarm();
  std::array<void*, kMostCalls> calls{};
  const int count = ::backtrace(calls.data(), static_cast<int>(calls.size()));
  ::backtrace_symbols_fd(calls.data(), count, STDERR_FILENO);
  // SA_RESETHAND has restored the default. A fault comes again by itself; what was sent does not.
  ::syscall(SYS_tgkill, ::getpid(), ::syscall(SYS_gettid), signal);
}

}  // namespace

void report_crashes(const char* program) {
  program_name = program;
  void* first = nullptr;
  ::backtrace(&first, 1);  // Loads what it needs now, as in a handler it must not.
  const stack_t stack{.ss_sp = alternate_stack.data(), .ss_flags = 0, .ss_size = kStackBytes};
  ::sigaltstack(&stack, nullptr);
  struct sigaction action {};
  action.sa_sigaction = report;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | static_cast<int>(SA_RESETHAND);
  for (const int signal : kFatalSignals) {
    ::sigaction(signal, &action, nullptr);
  }
}

}  // namespace migrate
