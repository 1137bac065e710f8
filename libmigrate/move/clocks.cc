#include "libmigrate/move/clocks.h"

#include <sstream>
#include <string>

#include "base/clock.h"
#include "base/file.h"

namespace migrate {

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
