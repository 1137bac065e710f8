#pragma once

#include <sys/types.h>

#include <cstdint>

#include "base/result.h"

namespace migrate {

/// The offsets of a time namespace: a process's clocks minus the machine's.
struct ClockOffsets {
  std::int64_t monotonic_ns = 0;
  std::int64_t boottime_ns = 0;
};
/// Those of process `pid`, or with 0 of this process: what its children will have, hence its own
/// only before it has made a cell.
Result<ClockOffsets> clock_offsets(pid_t pid);

}  // namespace migrate
