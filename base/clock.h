#pragma once

#include <time.h>

#include <cstdint>

namespace migrate {

inline constexpr std::int64_t kNanosecondsPerSecond = 1'000'000'000;
inline constexpr std::int64_t kNanosecondsPerMillisecond = 1'000'000;

/// Wraps around where `time` is later than 64 bits can say: it may be a traced program's.
constexpr std::uint64_t to_nanoseconds(const timespec& time) {
  return static_cast<std::uint64_t>(time.tv_sec) * kNanosecondsPerSecond +
         static_cast<std::uint64_t>(time.tv_nsec);
}

constexpr timespec to_timespec(std::uint64_t nanoseconds) {
  return {static_cast<time_t>(nanoseconds / kNanosecondsPerSecond),
          static_cast<long>(nanoseconds % kNanosecondsPerSecond)};
}

/// A clock of this process in nanoseconds.
inline std::int64_t clock_ns(clockid_t clock) {
  timespec now{};
  ::clock_gettime(clock, &now);
  return static_cast<std::int64_t>(to_nanoseconds(now));
}

/// CLOCK_MONOTONIC in microseconds.
inline std::int64_t now_us() {
  return clock_ns(CLOCK_MONOTONIC) / 1000;
}

/// CLOCK_REALTIME in microseconds.
inline std::int64_t calendar_us() {
  return clock_ns(CLOCK_REALTIME) / 1000;
}

}  // namespace migrate
