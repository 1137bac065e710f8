#pragma once
// What every test program shares. A program holds a table of properties; run as
//   PROGRAM --list                         names of its properties, one a line
//   PROGRAM PROPERTY STOP_FILE [SECONDS]   holds the property until STOP_FILE exists (or for
//   SECONDS)
// it prints "ready" once its state is set up, checks that state all the time, and at the end prints
// "ok" and exits with kSurvived, but only if the state survived; else it says what differs, and
// exits 1.

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <span>
#include <sstream>
#include <string>

#include "tests/programs/clock.h"

namespace check {

inline constexpr int kSurvived = 42;

/// One property: `run` sets it up, calls ready(), checks until stopping(), and returns if it held.
struct Property {
  const char* name;
  void (*run)();
};

inline std::string stop_file;
inline std::int64_t deadline_ns = 0;
inline std::atomic<bool> stop_seen{false};
inline std::atomic<std::int64_t> next_look_ns{0};

inline void say(const char* text) {
  std::size_t done = 0;
  const std::size_t length = std::strlen(text);
  while (done < length) {
    const ssize_t wrote = ::write(STDOUT_FILENO, text + done, length - done);
    if (wrote < 0 && errno != EINTR) {
      ::_exit(2);
    }
    done += wrote > 0 ? static_cast<std::size_t>(wrote) : 0;
  }
}

/// Says what differs and ends the process. Safe in signal handlers (as far as snprintf is).
[[noreturn]] __attribute__((format(printf, 1, 2))) inline void fail(const char* format, ...) {
  char text[700] = "differs: ";
  const std::size_t used = std::strlen(text);
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text + used, sizeof text - used - 2, format, arguments);
  va_end(arguments);
  std::strcat(text, "\n");
  say(text);
  ::_exit(1);
}

template <typename Actual, typename Expected>
void require_equal(const Actual& actual, const Expected& expected, const char* text,
                   const char* file, int line) {
  if (!(actual == expected)) {
    std::ostringstream message;
    message << file << ":" << line << ": " << text << " is " << actual << ", expected " << expected;
    fail("%s", message.str().c_str());
  }
}

#define CHECK(condition)                                                                       \
  do {                                                                                         \
    if (!(condition)) {                                                                        \
      const int check_errno = errno;                                                           \
      ::check::fail("%s:%d: %s does not hold (errno %d)", __FILE_NAME__, __LINE__, #condition, \
                    check_errno);                                                              \
    }                                                                                          \
  } while (false)
#define CHECK_EQUAL(actual, expected) \
  ::check::require_equal((actual), (expected), #actual, __FILE_NAME__, __LINE__)

/// Fails with errno if `result`, what a system call returned, says so; else returns it.
template <typename Integer>
Integer called(Integer result, const char* what) {
  if (result == static_cast<Integer>(-1)) {
    fail("%s: %s", what, std::strerror(errno));
  }
  return result;
}

inline bool stopping() {
  if (stop_seen.load(std::memory_order_relaxed)) {
    return true;
  }
  const std::int64_t now = now_ns();
  if (now < next_look_ns.load(std::memory_order_relaxed)) {
    return false;
  }
  next_look_ns.store(now + 10 * kMillisecond, std::memory_order_relaxed);
  if (::access(stop_file.c_str(), F_OK) == 0 || now > deadline_ns) {
    stop_seen.store(true);
  }
  return stop_seen.load();
}

inline void ready() {
  say("ready\n");
}

inline void sleep_ns(std::int64_t length_ns) {
  timespec rest = to_timespec(length_ns);
  while (::nanosleep(&rest, &rest) != 0) {
  }
}

/// A path for a file of this run, unique by the stop file's name.
inline std::string work_path(const char* name) {
  return stop_file + "." + name;
}

inline std::string read_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

inline void write_text(const std::string& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

/// xorshift64*: small, and its state is part of what is tested.
class Random {
 public:
  explicit Random(std::uint64_t seed) : x_state(seed * 0x9E3779B97F4A7C15U + 1) {}
  std::uint64_t next() {
    x_state ^= x_state >> 12U;
    x_state ^= x_state << 25U;
    x_state ^= x_state >> 27U;
    return x_state * 0x2545F4914F6CDD1DU;
  }
  std::uint64_t below(std::uint64_t bound) { return next() % bound; }

 private:
  std::uint64_t x_state;
};

/// Anonymous memory by default; fails the program if it cannot be had.
inline void* map_memory(std::size_t length_bytes, int protection = PROT_READ | PROT_WRITE,
                        int flags = MAP_PRIVATE | MAP_ANONYMOUS, int fd = -1) {
  void* memory = ::mmap(nullptr, length_bytes, protection, flags, fd, 0);
  if (memory == MAP_FAILED) {
    fail("mmap of %zu bytes: %s", length_bytes, std::strerror(errno));
  }
  return memory;
}

inline int main(int argc, char** argv, std::span<const Property> properties) {
  if (argc == 2 && std::strcmp(argv[1], "--list") == 0) {
    for (const Property& property : properties) {
      std::puts(property.name);
    }
    return 0;
  }
  if (argc < 3) {
    std::fprintf(stderr, "usage: %s --list | PROPERTY STOP_FILE [SECONDS]\n", argv[0]);
    return 2;
  }
  stop_file = argv[2];
  deadline_ns = now_ns() + (argc > 3 ? std::atoll(argv[3]) : 600) * kSecond;
  for (const Property& property : properties) {
    if (std::strcmp(argv[1], property.name) == 0) {
      property.run();
      say("ok\n");
      return kSurvived;
    }
  }
  std::fprintf(stderr, "%s: no property '%s'\n", argv[0], argv[1]);
  return 2;
}

}  // namespace check
