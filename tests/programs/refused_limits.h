#pragma once
// Programs that have reached a limit which moving them would exceed (refused.cc).

#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <functional>
#include <sstream>
#include <string>

#include "tests/programs/check.h"

namespace refused {

/// Checks at the end that what was set up still works, and removes it.
using Verify = std::function<void()>;

inline Verify limit_reached(__rlimit_resource resource, std::uint64_t bytes) {
  const rlimit limit{bytes, bytes};
  check::called(::setrlimit(resource, &limit), "setrlimit");
  return [=] {
    rlimit now{};
    check::called(::getrlimit(resource, &now), "getrlimit");
    CHECK_EQUAL(now.rlim_cur, bytes);
  };
}

/// No more memory than it has.
inline Verify memory_limit() {
  std::istringstream pages(check::read_text("/proc/self/statm"));
  std::uint64_t count = 0;
  pages >> count;
  return limit_reached(RLIMIT_AS, (count + 16) * 4096);
}

inline Verify data_limit() {
  return limit_reached(RLIMIT_DATA, 300'000);
}

/// No descriptor is free but one.
inline Verify descriptor_limit() {
  const Verify verify = limit_reached(RLIMIT_NOFILE, 20);
  const int last = check::called(::eventfd(0, 0), "eventfd");
  for (int fd = last; fd < 18; fd = check::called(::eventfd(0, 0), "eventfd")) {
  }
  return verify;
}

/// Its data is in more pieces than an image lists.
inline Verify memfd_in_pieces() {
  static constexpr off_t kPieces = (off_t{1} << 16) + 1000;
  static constexpr off_t kDistance = 8192;
  const int fd = check::called(::memfd_create("pieces", 0), "memfd_create");
  for (off_t piece = 0; piece < kPieces; ++piece) {
    check::called(::pwrite(fd, "x", 1, piece * kDistance), "pwrite");
  }
  return [fd] { CHECK_EQUAL(::lseek(fd, 0, SEEK_END), (kPieces - 1) * kDistance + 1); };
}

/// More timers than a script has room for.
inline Verify many_timers() {
  timer_t timer{};
  for (int i = 0; i < 600; ++i) {
    check::called(::timer_create(CLOCK_MONOTONIC, nullptr, &timer), "timer_create");
  }
  return [timer] { check::called(::timer_delete(timer), "timer_delete"); };
}

/// More signals that are blocked and wait.
inline Verify hidden_signals() {
  static constexpr int kCount = 1100;
  sigset_t set;
  ::sigemptyset(&set);
  ::sigaddset(&set, SIGRTMIN + 3);
  check::called(::sigprocmask(SIG_BLOCK, &set, nullptr), "sigprocmask");
  for (int i = 0; i < kCount; ++i) {
    check::called(::sigqueue(::getpid(), SIGRTMIN + 3, {}), "sigqueue");
  }
  return [set] {
    const timespec now{};
    for (int i = 0; i < kCount; ++i) {
      CHECK_EQUAL(::sigtimedwait(&set, nullptr, &now), SIGRTMIN + 3);
    }
  };
}

}  // namespace refused
