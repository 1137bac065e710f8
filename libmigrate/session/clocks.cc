#include "libmigrate/session/clocks.h"

#include <sstream>
#include <string>

#include "base/file.h"

namespace migrate {
namespace {

constexpr std::int64_t kNanosecondsPerSecond = 1'000'000'000;

}  // namespace

std::int64_t clock_ns(clockid_t clock) {
  timespec now{};
  ::clock_gettime(clock, &now);
  return now.tv_sec * kNanosecondsPerSecond + now.tv_nsec;
}

std::int64_t now_us() {
  return clock_ns(CLOCK_MONOTONIC) / 1000;
}

Result<ClockOffsets> clock_offsets(pid_t pid) {
  const std::string process = pid == 0 ? "self" : std::to_string(pid);
  std::istringstream text(MIGRATE_TRY(read_file("/proc/" + process + "/timens_offsets")));
  ClockOffsets offsets;
  std::string clock;
  for (std::int64_t seconds = 0, nanoseconds = 0; text >> clock >> seconds >> nanoseconds;) {
    std::int64_t& value = clock == "monotonic" ? offsets.monotonic_ns : offsets.boottime_ns;
    value = seconds * kNanosecondsPerSecond + nanoseconds;
  }
  return offsets;
}

}  // namespace migrate
