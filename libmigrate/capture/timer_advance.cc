#include "libmigrate/capture/timer_advance.h"

#include <time.h>

#include <algorithm>
#include <array>

namespace migrate {
namespace {

constexpr std::array<int, 6> kClocksThatGoOn{CLOCK_REALTIME,       CLOCK_MONOTONIC,
                                             CLOCK_BOOTTIME,       CLOCK_REALTIME_ALARM,
                                             CLOCK_BOOTTIME_ALARM, CLOCK_TAI};

bool goes_on(int clock) {
  return std::find(kClocksThatGoOn.begin(), kClocksThatGoOn.end(), clock) != kClocksThatGoOn.end();
}

// Since `read_ns` of the source's clock; none where that is not known. Whatever a peer says of its
// clocks gives some time.
std::uint64_t elapsed_ns(const wire::Image& image, std::uint64_t read_ns, std::int64_t now_ns) {
  const std::uint64_t source_now_ns =
      static_cast<std::uint64_t>(now_ns) - static_cast<std::uint64_t>(image.clock_offset_ns());
  const auto elapsed = static_cast<std::int64_t>(source_now_ns - read_ns);
  return read_ns == 0 || elapsed < 0 ? 0 : static_cast<std::uint64_t>(elapsed);
}

// What is left of an armed timer; at least one unit.
std::uint64_t left(std::uint64_t value, std::uint64_t elapsed) {
  return value > elapsed ? value - elapsed : std::min<std::uint64_t>(value, 1);
}

void advance_timerfd(wire::OpenFile& file, std::uint64_t elapsed) {
  const std::uint64_t value = file.value_ns();
  const std::uint64_t interval = file.interval_ns();
  if (value == 0 || value > elapsed || interval == 0) {
    file.set_value_ns(left(value, elapsed));
    return;
  }
  const std::uint64_t late = elapsed - value;
  file.set_ticks(file.ticks() + 1 + late / interval);
  file.set_value_ns(interval - late % interval);
}

}  // namespace

void advance_timers(wire::Image& image, std::int64_t now_ns) {
  constexpr std::uint64_t kMicrosecond = 1000;
  const std::uint64_t elapsed = elapsed_ns(image, image.timers_read_ns(), now_ns);
  if (image.interval_timers_size() > 0) {  // The others count processor time.
    wire::IntervalTimer& real = *image.mutable_interval_timers(0);
    real.set_value_us(left(real.value_us(), elapsed / kMicrosecond));
  }
  for (wire::PosixTimer& timer : *image.mutable_posix_timers()) {
    if (goes_on(timer.clock())) {
      timer.set_value_ns(left(timer.value_ns(), elapsed));
    }
  }
  for (wire::Thread& thread : *image.mutable_threads()) {
    thread.set_wait_remaining_ns(left(thread.wait_remaining_ns(), elapsed));
  }
  for (wire::OpenFile& file : *image.mutable_files()) {
    if (file.kind() == wire::OpenFile::TIMERFD) {
      advance_timerfd(file, elapsed_ns(image, file.read_ns(), now_ns));
      file.clear_read_ns();
    }
  }
  image.clear_timers_read_ns();
}

}  // namespace migrate
