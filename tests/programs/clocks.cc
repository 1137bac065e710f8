// Timers and clocks: they go on counting, without a jump and without a loss.
#include <signal.h>
#include <sys/time.h>

#include <array>
#include <thread>

#include "tests/programs/check.h"

namespace {

using check::called;
using check::stopping;

constexpr std::int64_t kInterval = 20 * check::kMillisecond;

std::atomic<std::int64_t> ticks{0};

void on_tick(int) {
  ++ticks;
}

void handle(int number, void (*handler)(int)) {
  struct sigaction action {};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  called(::sigaction(number, &action, nullptr), "sigaction");
}

/// After the last move the timer still runs.
void expect_more_ticks() {
  const std::int64_t before = ticks;
  const std::int64_t end = check::now_ns() + 10 * check::kSecond;
  volatile std::uint64_t work = 0;
  while (ticks < before + 5) {
    CHECK(check::now_ns() < end);
    work = work + 1;  // Timers of processor time need some.
  }
}

/// Not more ticks than the time holds, and not far fewer.
void expect_ticks(std::int64_t count, std::int64_t begin_ns) {
  const std::int64_t most = (check::now_ns() - begin_ns) / kInterval + 2;
  if (count > most || count < most / 3) {
    check::fail("%lld ticks, where %lld were due", static_cast<long long>(count),
                static_cast<long long>(most));
  }
}

void start_itimer(__itimer_which which) {
  const timeval interval{.tv_sec = 0, .tv_usec = kInterval / 1000};
  const itimerval timer{.it_interval = interval, .it_value = interval};
  called(::setitimer(which, &timer, nullptr), "setitimer");
}

void expect_interval(__itimer_which which) {
  itimerval timer{};
  called(::getitimer(which, &timer), "getitimer");
  CHECK_EQUAL(timer.it_interval.tv_sec, 0);
  CHECK_EQUAL(timer.it_interval.tv_usec, kInterval / 1000);
  CHECK(timer.it_value.tv_sec == 0 && timer.it_value.tv_usec <= kInterval / 1000 + 10'000);
}

void itimer_real() {
  handle(SIGALRM, on_tick);
  const std::int64_t begin = check::now_ns();
  start_itimer(ITIMER_REAL);
  check::ready();
  while (!stopping()) {
    expect_interval(ITIMER_REAL);
    check::sleep_ns(check::kMillisecond);
  }
  expect_more_ticks();
  expect_ticks(ticks, begin);
}

template <__itimer_which Which, int Signal>
void itimer_of_processor() {
  handle(Signal, on_tick);
  start_itimer(Which);
  check::ready();
  while (!stopping()) {
    expect_interval(Which);
  }
  expect_more_ticks();
}

timer_t make_timer(int notify, int number, int value, pid_t thread) {
  sigevent event{};
  event.sigev_notify = notify;
  event.sigev_signo = number;
  event.sigev_value.sival_int = value;
  event._sigev_un._tid = thread;
  timer_t timer{};
  called(::timer_create(CLOCK_MONOTONIC, &event, &timer), "timer_create");
  return timer;
}

void start_timer(timer_t timer) {
  const timespec interval = check::to_timespec(kInterval);
  const itimerspec setting{.it_interval = interval, .it_value = interval};
  called(::timer_settime(timer, 0, &setting, nullptr), "timer_settime");
}

void expect_timer(timer_t timer) {
  itimerspec setting{};
  called(::timer_gettime(timer, &setting), "timer_gettime");
  CHECK_EQUAL(check::to_ns(setting.it_interval), kInterval);
  CHECK(check::to_ns(setting.it_value) > 0 && check::to_ns(setting.it_value) <= kInterval);
}

constexpr int kTimerValue = 4711;
pid_t timer_thread = 0;

void on_timer(int, siginfo_t* info, void*) {
  CHECK_EQUAL(info->si_code, SI_TIMER);
  CHECK_EQUAL(info->si_value.sival_int, kTimerValue);
  if (timer_thread != 0) {
    CHECK_EQUAL(static_cast<pid_t>(::syscall(SYS_gettid)), timer_thread);
  }
  ticks += 1 + info->si_overrun;
}

/// A timer whose signal nobody takes: it waits once, and once more at most that came along.
void posix_timer_blocked() {
  sigset_t blocked{};
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGRTMIN);
  called(::sigprocmask(SIG_BLOCK, &blocked, nullptr), "sigprocmask");
  start_timer(make_timer(SIGEV_SIGNAL, SIGRTMIN, kTimerValue, 0));
  check::ready();
  while (!stopping()) {
    check::sleep_ns(kInterval);
  }
  int waiting = 0;
  const timespec now{};
  siginfo_t info{};
  while (::sigtimedwait(&blocked, &info, &now) == SIGRTMIN) {
    CHECK_EQUAL(info.si_value.sival_int, kTimerValue);
    ++waiting;
  }
  CHECK(waiting >= 1 && waiting <= 2);
}

/// Timers whose ids leave a gap, one of them running, one set but far away, one disarmed.
void posix_timer() {
  struct sigaction action {};
  action.sa_sigaction = on_timer;
  action.sa_flags = SA_SIGINFO | SA_RESTART;
  called(::sigaction(SIGRTMIN, &action, nullptr), "sigaction");
  timer_thread = static_cast<pid_t>(::syscall(SYS_gettid));
  timer_t far = make_timer(SIGEV_SIGNAL, SIGRTMIN, 1, 0);
  timer_t deleted = make_timer(SIGEV_SIGNAL, SIGRTMIN, 2, 0);
  timer_t idle = make_timer(SIGEV_NONE, 0, 3, 0);
  timer_t running = make_timer(SIGEV_THREAD_ID, SIGRTMIN, kTimerValue, timer_thread);
  called(::timer_delete(deleted), "timer_delete");
  const itimerspec hour{.it_interval = {}, .it_value = {.tv_sec = 3600, .tv_nsec = 0}};
  called(::timer_settime(far, 0, &hour, nullptr), "timer_settime");
  const std::int64_t begin = check::now_ns();
  start_timer(running);
  std::thread other([] {
    while (!stopping()) {
      check::sleep_ns(check::kMillisecond);
    }
  });
  check::ready();
  while (!stopping()) {
    expect_timer(running);
    itimerspec setting{};
    called(::timer_gettime(idle, &setting), "timer_gettime");
    CHECK_EQUAL(check::to_ns(setting.it_value), 0);
    called(::timer_gettime(far, &setting), "timer_gettime");
    const std::int64_t gone = check::now_ns() - begin;
    const std::int64_t rest = 3600 * check::kSecond - check::to_ns(setting.it_value);
    CHECK(rest <= gone + check::kSecond && rest >= gone - check::kSecond);
    check::sleep_ns(check::kMillisecond);
  }
  other.join();
  expect_more_ticks();
  expect_ticks(ticks, begin);
  called(::timer_delete(far), "timer_delete");
  called(::timer_delete(idle), "timer_delete");
  called(::timer_delete(running), "timer_delete");
}

/// The plain kind: the process is told, by whichever thread.
void posix_timer_signal() {
  struct sigaction action {};
  action.sa_sigaction = on_timer;
  action.sa_flags = SA_SIGINFO | SA_RESTART;
  called(::sigaction(SIGRTMIN, &action, nullptr), "sigaction");
  timer_t timer = make_timer(SIGEV_SIGNAL, SIGRTMIN, kTimerValue, 0);
  const std::int64_t begin = check::now_ns();
  start_timer(timer);
  check::ready();
  while (!stopping()) {
    expect_timer(timer);
    check::sleep_ns(check::kMillisecond);
  }
  expect_more_ticks();
  expect_ticks(ticks, begin);
}

constexpr std::array kClocks = {CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_MONOTONIC_RAW,
                                CLOCK_MONOTONIC_COARSE, CLOCK_REALTIME};

std::int64_t raw_now_ns(clockid_t clock) {
  timespec now{};
  called(::syscall(SYS_clock_gettime, clock, &now), "clock_gettime");
  return check::to_ns(now);
}

/// Each clock goes on without a jump, by vDSO and by system call alike, and at the same pace.
void monotonic() {
  std::array<std::int64_t, kClocks.size()> begin{};
  std::array<std::int64_t, kClocks.size()> last{};
  for (std::size_t index = 0; index < kClocks.size(); ++index) {
    begin[index] = last[index] = check::now_ns(kClocks[index]);
  }
  check::ready();
  while (!stopping()) {
    const std::int64_t before = raw_now_ns(CLOCK_MONOTONIC);
    for (std::size_t index = 0; index < kClocks.size(); ++index) {
      const std::int64_t now = check::now_ns(kClocks[index]);
      const std::int64_t raw = raw_now_ns(kClocks[index]);
      if (now < last[index] || raw < now || raw > last[index] + 10 * check::kSecond) {
        check::fail("clock %d: %lld, then %lld, then %lld by system call", kClocks[index],
                    static_cast<long long>(last[index]), static_cast<long long>(now),
                    static_cast<long long>(raw));
      }
      last[index] = raw;
    }
    const std::int64_t gone = check::now_ns() - begin[0];
    const std::int64_t slack = raw_now_ns(CLOCK_MONOTONIC) - before + 100 * check::kMillisecond;
    for (std::size_t index = 0; index < kClocks.size(); ++index) {
      const std::int64_t difference = last[index] - begin[index] - gone;
      if (difference > slack || difference < -slack) {
        check::fail("clock %d is %lld us off CLOCK_MONOTONIC", kClocks[index],
                    static_cast<long long>(difference / 1000));
      }
    }
  }
}

constexpr check::Property kProperties[] = {
    {"itimer_real", itimer_real},
    {"itimer_virtual", itimer_of_processor<ITIMER_VIRTUAL, SIGVTALRM>},
    {"itimer_profiling", itimer_of_processor<ITIMER_PROF, SIGPROF>},
    {"posix_timer", posix_timer},
    {"posix_timer_signal", posix_timer_signal},
    {"posix_timer_blocked", posix_timer_blocked},
    {"monotonic", monotonic},
};

}  // namespace

int main(int argc, char** argv) {
  return check::main(argc, argv, kProperties);
}
