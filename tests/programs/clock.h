#pragma once
// Clocks in nanoseconds, for the test programs.

#include <time.h>

#include <cstdint>

namespace check {

inline constexpr std::int64_t kMillisecond = 1'000'000;
inline constexpr std::int64_t kSecond = 1'000 * kMillisecond;

inline std::int64_t to_ns(const timespec& time) {
  return time.tv_sec * kSecond + time.tv_nsec;
}

inline timespec to_timespec(std::int64_t time_ns) {
  return {.tv_sec = time_ns / kSecond, .tv_nsec = time_ns % kSecond};
}

inline std::int64_t now_ns(clockid_t clock = CLOCK_MONOTONIC) {
  timespec now{};
  clock_gettime(clock, &now);
  return to_ns(now);
}

}  // namespace check
