#pragma once

#include <cstdint>

#include "libmigrate/proto/image.pb.h"

namespace migrate {

/// Takes the time that has gone by since they were read off the timers and waits of a process and
/// off the timers among its `objects`, once, so that they end when they would have ended if the
/// process had not been stopped: `now_ns` is CLOCK_MONOTONIC of the process. What is over by then
/// ends at once. A periodic timerfd keeps its rhythm and counts what it missed; another periodic
/// timer that is over begins a new one. Timers of processor time are left alone.
void advance_timers(wire::Objects& objects, wire::ProcessImage& image, std::int64_t now_ns);

}  // namespace migrate
