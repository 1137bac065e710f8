#include "libmigrate/capture/timer_advance.h"

#include <time.h>

#include <algorithm>
#include <array>

#include "libmigrate/carriers/carriers.h"
#include "libmigrate/carriers/time_left.h"

namespace migrate {
namespace {

constexpr std::array<int, 6> kClocksThatGoOn{CLOCK_REALTIME,       CLOCK_MONOTONIC,
                                             CLOCK_BOOTTIME,       CLOCK_REALTIME_ALARM,
                                             CLOCK_BOOTTIME_ALARM, CLOCK_TAI};

bool goes_on(int clock) {
  return std::find(kClocksThatGoOn.begin(), kClocksThatGoOn.end(), clock) != kClocksThatGoOn.end();
}

}  // namespace

void advance_timers(wire::Objects& objects, wire::ProcessImage& image, std::int64_t now_ns) {
  constexpr std::uint64_t kMicrosecond = 1000;
  const std::uint64_t source_now_ns =
      static_cast<std::uint64_t>(now_ns) - static_cast<std::uint64_t>(image.clock_offset_ns());
  const std::uint64_t elapsed = carriers::time_since(image.timers_read_ns(), source_now_ns);
  if (image.interval_timers_size() > 0) {  // The others count processor time.
    wire::IntervalTimer& real = *image.mutable_interval_timers(0);
    real.set_value_us(carriers::time_left(real.value_us(), elapsed / kMicrosecond));
  }
  for (wire::PosixTimer& timer : *image.mutable_posix_timers()) {
    if (goes_on(timer.clock())) {
      timer.set_value_ns(carriers::time_left(timer.value_ns(), elapsed));
    }
  }
  for (wire::Thread& thread : *image.mutable_threads()) {
    thread.set_wait_remaining_ns(carriers::time_left(thread.wait_remaining_ns(), elapsed));
  }
  for (wire::OpenFile& file : *objects.mutable_files()) {
    if (const auto advance = carriers::carrier_of(file.kind()).advance; advance != nullptr) {
      advance(file, source_now_ns);
    }
  }
  image.clear_timers_read_ns();
}

}  // namespace migrate
