// System calls that wait: a move must not make any of them return early, or fail.
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/select.h>

#include <array>
#include <thread>
#include <vector>

#include "tests/programs/check.h"

namespace {

using check::called;
using check::stopping;
using check::to_timespec;

constexpr std::int64_t kAsked = 800 * check::kMillisecond;
constexpr std::int64_t kLate = 3 * check::kSecond;

/// Runs `wait` (0 when it ended as it should, else errno) again and again, and times it.
template <typename Wait>
void repeat(const char* what, Wait wait) {
  while (!stopping()) {
    const std::int64_t begin = check::now_ns();
    const int error = wait();
    const std::int64_t took = check::now_ns() - begin;
    if (error != 0) {
      check::fail("%s after %lld us: %s", what, static_cast<long long>(took / 1000),
                  std::strerror(error));
    }
    if (took < kAsked || took > kAsked + kLate) {
      check::fail("%s took %lld us, asked for %lld", what, static_cast<long long>(took / 1000),
                  static_cast<long long>(kAsked / 1000));
    }
  }
}

/// `result` of a call that must run into its timeout by returning 0.
int timed_out(long result) {
  if (result == 0) {
    return 0;
  }
  return result < 0 ? errno : EPROTO;
}

/// `result` of a call that must run into its timeout by failing with `expected`.
int failed_with(long result, int expected) {
  if (result >= 0) {
    return EPROTO;
  }
  return errno == expected ? 0 : errno;
}

void nanosleep_body() {
  repeat("nanosleep", [] {
    const timespec length = to_timespec(kAsked);
    return timed_out(::nanosleep(&length, nullptr));
  });
}

void clock_relative_body() {
  repeat("clock_nanosleep, relative", [] {
    const timespec length = to_timespec(kAsked);
    return ::clock_nanosleep(CLOCK_MONOTONIC, 0, &length, nullptr);
  });
}

void clock_absolute_body() {
  repeat("clock_nanosleep, absolute", [] {
    const timespec end = to_timespec(check::now_ns() + kAsked);
    return ::clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &end, nullptr);
  });
}

void poll_body() {
  repeat("poll", [] { return timed_out(::poll(nullptr, 0, kAsked / check::kMillisecond)); });
}

void ppoll_body() {
  std::array<int, 2> ends{};
  called(::pipe(ends.data()), "pipe");
  repeat("ppoll", [&ends] {
    pollfd wanted{.fd = ends[0], .events = POLLIN, .revents = 0};
    const timespec length = to_timespec(kAsked);
    return timed_out(::ppoll(&wanted, 1, &length, nullptr));
  });
}

void select_body() {
  std::array<int, 2> ends{};
  called(::pipe(ends.data()), "pipe");
  repeat("select", [&ends] {
    fd_set wanted{};
    FD_SET(ends[0], &wanted);
    timeval length{.tv_sec = 0, .tv_usec = kAsked / 1000};
    return timed_out(::select(ends[0] + 1, &wanted, nullptr, nullptr, &length));
  });
}

void epoll_body() {
  const int epoll = called(::epoll_create1(0), "epoll_create1");
  repeat("epoll_wait", [epoll] {
    epoll_event event{};
    return timed_out(::epoll_wait(epoll, &event, 1, kAsked / check::kMillisecond));
  });
}

void futex_body() {
  static std::uint32_t word = 0;
  repeat("futex wait", [] {
    const timespec length = to_timespec(kAsked);
    return failed_with(::syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, &length, nullptr, 0),
                       ETIMEDOUT);
  });
}

void semaphore_body() {
  sem_t semaphore{};
  sem_init(&semaphore, 0, 0);
  repeat("sem_clockwait", [&semaphore] {
    const timespec end = to_timespec(check::now_ns() + kAsked);
    return failed_with(::sem_clockwait(&semaphore, CLOCK_MONOTONIC, &end), ETIMEDOUT);
  });
}

void sigtimedwait_body() {
  repeat("sigtimedwait", [] {
    sigset_t wanted{};
    sigemptyset(&wanted);
    sigaddset(&wanted, SIGRTMIN + 5);
    const timespec length = to_timespec(kAsked);
    return failed_with(::sigtimedwait(&wanted, nullptr, &length), EAGAIN);
  });
}

/// Waits without a timeout in a second thread, while this one lets it go after kAsked.
void wait_for_release(const char* what, int (*wait)(), void (*release)(pthread_t)) {
  while (!stopping()) {
    std::atomic<bool> released{false};
    std::thread waiter([&released, what, wait] {
      const int error = wait();
      if (error != 0 || !released) {
        check::fail("%s returned %s: %s", what, released ? "late" : "early", std::strerror(error));
      }
    });
    check::sleep_ns(kAsked);
    released = true;
    release(waiter.native_handle());
    waiter.join();
  }
}

std::array<int, 2> waited_pipe{};

void read_pipe_body() {
  called(::pipe(waited_pipe.data()), "pipe");
  wait_for_release(
      "read of a pipe",
      [] {
        char letter = 0;
        const ssize_t got = ::read(waited_pipe[0], &letter, 1);
        return got == 1 && letter == 'x' ? 0 : errno;
      },
      [](pthread_t) { CHECK_EQUAL(::write(waited_pipe[1], "x", 1), 1); });
}

void sigwait_body() {
  wait_for_release(
      "sigwait",
      [] {
        sigset_t wanted{};
        sigemptyset(&wanted);
        sigaddset(&wanted, SIGRTMIN + 6);
        int number = 0;
        const int error = ::sigwait(&wanted, &number);
        return error == 0 && number != SIGRTMIN + 6 ? EPROTO : error;
      },
      [](pthread_t thread) { pthread_kill(thread, SIGRTMIN + 6); });
}

std::atomic<bool> pause_ended{false};
thread_local volatile bool handler_ran = false;

void pause_body() {
  struct sigaction action {};
  action.sa_handler = [](int) { handler_ran = true; };
  called(::sigaction(SIGUSR2, &action, nullptr), "sigaction");
  wait_for_release(
      "pause",
      [] {
        pause_ended = false;
        const int result = ::pause();
        pause_ended = true;
        return result == -1 && errno == EINTR && handler_ran ? 0 : EPROTO;
      },
      [](pthread_t thread) {
        while (!pause_ended) {  // Again, should the first have come before pause().
          pthread_kill(thread, SIGUSR2);
          check::sleep_ns(5 * check::kMillisecond);
        }
      });
}

constexpr std::size_t kWritten = 300'000;

/// A write into a full pipe; a part may be written, as with a signal, but nothing twice or never.
void write_pipe_body() {
  std::array<int, 2> ends{};
  called(::pipe(ends.data()), "pipe");
  std::thread reader([&ends] {
    std::array<std::uint32_t, 1024> block{};
    std::uint32_t expected = 0;
    ssize_t got = 0;
    while ((got = called(::read(ends[0], block.data(), sizeof block), "read")) > 0) {
      CHECK_EQUAL(got % 4, 0);
      for (std::size_t index = 0; index < static_cast<std::size_t>(got) / 4; ++index) {
        CHECK_EQUAL(block[index], expected++);
      }
      check::sleep_ns(5 * check::kMillisecond);
    }
  });
  std::vector<std::uint32_t> numbers(kWritten / 4);
  std::uint32_t next = 0;
  while (!stopping()) {
    for (std::uint32_t& number : numbers) {
      number = next++;
    }
    const auto* bytes = reinterpret_cast<const char*>(numbers.data());
    for (std::size_t done = 0; done < kWritten;) {
      done += static_cast<std::size_t>(
          called(::write(ends[1], bytes + done, kWritten - done), "write"));
    }
  }
  ::close(ends[1]);
  reader.join();
}

std::atomic<int> alarms{0};

/// With a handler: a sleep ends with EINTR and the rest of its time, a read goes on (SA_RESTART).
void handler_body() {
  struct sigaction action {};
  action.sa_handler = [](int) { ++alarms; };
  called(::sigaction(SIGALRM, &action, nullptr), "sigaction");
  while (!stopping()) {
    const int before = alarms;
    const std::int64_t begin = check::now_ns();
    ::ualarm(300'000, 0);
    timespec rest = to_timespec(5 * check::kSecond);
    const int result = ::nanosleep(&rest, &rest);
    CHECK(result == -1 && errno == EINTR);
    CHECK_EQUAL(alarms.load(), before + 1);
    const std::int64_t sum = check::now_ns() - begin + check::to_ns(rest);
    CHECK(sum >= 5 * check::kSecond - 10 * check::kMillisecond && sum < 8 * check::kSecond);
  }
}

template <void (*Body)()>
void one() {
  sigset_t blocked{};
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGRTMIN + 5);
  sigaddset(&blocked, SIGRTMIN + 6);
  sigprocmask(SIG_BLOCK, &blocked, nullptr);
  check::ready();
  Body();
}

void all_body() {
  std::vector<std::thread> threads;
  for (void (*body)() :
       {nanosleep_body, clock_relative_body, clock_absolute_body, poll_body, ppoll_body,
        select_body, futex_body, semaphore_body, read_pipe_body, sigwait_body, pause_body}) {
    threads.emplace_back(body);
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
}

constexpr check::Property kProperties[] = {
    {"nanosleep", one<nanosleep_body>},
    {"clock_relative", one<clock_relative_body>},
    {"clock_absolute", one<clock_absolute_body>},
    {"poll", one<poll_body>},
    {"ppoll", one<ppoll_body>},
    {"select", one<select_body>},
    {"epoll", one<epoll_body>},
    {"futex", one<futex_body>},
    {"semaphore", one<semaphore_body>},
    {"sigtimedwait", one<sigtimedwait_body>},
    {"read_pipe", one<read_pipe_body>},
    {"write_pipe", one<write_pipe_body>},
    {"sigwait", one<sigwait_body>},
    {"pause", one<pause_body>},
    {"handler", one<handler_body>},
    {"all", one<all_body>},
};

}  // namespace

int main(int argc, char** argv) {
  return check::main(argc, argv, kProperties);
}
