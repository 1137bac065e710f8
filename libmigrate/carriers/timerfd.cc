// A timer (timerfd_create(2)), carried by what is left of it and the ticks that nobody has read.
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <string>

#include "base/clock.h"
#include "base/file.h"
#include "libmigrate/carriers/internal/table.h"
#include "libmigrate/carriers/internal/tools.h"
#include "libmigrate/carriers/time_left.h"
#include "libmigrate/proc/proc_text.h"

#ifndef TFD_IOC_SET_TICKS
// NOLINTNEXTLINE(readability-identifier-naming): the kernel's name
#define TFD_IOC_SET_TICKS _IOW('T', 0, std::uint64_t)
#endif

namespace migrate::carriers {
namespace {

constexpr std::uint32_t kTimerFlags = TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET;
constexpr int kExpiryMs = 100;  // For a timer of one nanosecond.

// Those that timerfd_create(2) takes.
constexpr std::array<std::uint32_t, 5> kTimerClocks{CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME,
                                                    CLOCK_REALTIME_ALARM, CLOCK_BOOTTIME_ALARM};

// The clock that shows the time of another: those that wake a machine need one that does.
clockid_t read_clock(std::uint32_t clock) {
  return clock == CLOCK_REALTIME_ALARM   ? CLOCK_REALTIME
         : clock == CLOCK_BOOTTIME_ALARM ? CLOCK_BOOTTIME
                                         : static_cast<clockid_t>(clock);
}

// "(seconds, nanoseconds)"
std::uint64_t parenthesised_time(std::string_view text, std::string_view key) {
  const auto field = find_field(text, key);
  if (!field) {
    return 0;
  }
  const std::size_t comma = field->find(',');
  if (!field->starts_with('(') || !field->ends_with(')') || comma == std::string_view::npos) {
    return 0;
  }
  std::string_view nanoseconds = field->substr(comma + 1, field->size() - comma - 2);
  return parse_number(field->substr(1, comma - 1)).value_or(0) * kNanosecondsPerSecond +
         parse_number(take_word(nanoseconds)).value_or(0);
}

// A periodic timer that has expired and was not looked at since stands still; the kernel adds what
// it missed, and starts it again, when somebody asks for its time. The process would find the same.
void count_ticks(const FindContext& context, const Sighting& seen, wire::OpenFile& file) {
  const UniqueFd timer = context.fetch(seen.number);
  itimerspec now{};
  if (!timer.valid() || ::timerfd_gettime(timer.get(), &now) != 0) {
    return;
  }
  if (const auto details = read_file("/proc/self/fdinfo/" + std::to_string(timer.get()))) {
    file.set_ticks(number_field(*details, "ticks:"));
    file.set_value_ns(parenthesised_time(*details, "it_value:"));
  }
}

bool find_timerfd(FindContext& context, const Sighting& seen, wire::OpenFile& file) {
  const std::string_view details = seen.details;
  if (!find_field(details, "clockid:") || !find_field(details, "it_value:")) {
    return context.refuse("UNKNOWN_DESCRIPTOR", seen, "the kernel does not show its state");
  }
  file.set_clock(static_cast<std::uint32_t>(number_field(details, "clockid:")));
  file.set_ticks(number_field(details, "ticks:"));
  file.set_settime_flags(static_cast<std::uint32_t>(number_field(details, "settime flags:", 8)));
  file.set_value_ns(parenthesised_time(details, "it_value:"));
  file.set_interval_ns(parenthesised_time(details, "it_interval:"));
  if (file.ticks() != 0 && file.interval_ns() != 0) {
    count_ticks(context, seen, file);
  }
  file.set_read_ns(static_cast<std::uint64_t>(clock_ns(CLOCK_MONOTONIC)));
  return true;
}

// It keeps its rhythm, and counts what it missed.
void advance_timerfd(wire::OpenFile& file, std::uint64_t source_now_ns) {
  const std::uint64_t elapsed = time_since(file.read_ns(), source_now_ns);
  file.clear_read_ns();
  const std::uint64_t value = file.value_ns();
  const std::uint64_t interval = file.interval_ns();
  if (value == 0 || value > elapsed || interval == 0) {
    file.set_value_ns(time_left(value, elapsed));
    return;
  }
  const std::uint64_t late = elapsed - value;
  file.set_ticks(file.ticks() + 1 + late / interval);
  file.set_value_ns(interval - late % interval);
}

const char* flaw_of_timerfd(const wire::Objects& /*objects*/, const wire::OpenFile& file) {
  return std::ranges::find(kTimerClocks, file.clock()) != kTimerClocks.end() ? nullptr
                                                                             : "clock of files";
}

Result<UniqueFd> make_timerfd(MakeContext& /*context*/, const wire::OpenFile& file) {
  UniqueFd fd = MIGRATE_TRY(
      owned(::timerfd_create(static_cast<int>(file.clock()), TFD_CLOEXEC), "make a timerfd"));
  // One that has expired and was not read yet has no time left; it starts again when it is read.
  const bool expired = file.ticks() != 0 && file.value_ns() == 0 && file.interval_ns() != 0;
  std::uint64_t value_ns = expired ? 1 : file.value_ns();
  // An absolute one is set so again: it follows the clock, and may end when that is set.
  const std::uint32_t flags = file.settime_flags() & kTimerFlags;
  if (value_ns != 0 && (flags & TFD_TIMER_ABSTIME) != 0) {
    value_ns += static_cast<std::uint64_t>(clock_ns(read_clock(file.clock())));
  }
  const itimerspec setting{to_timespec(file.interval_ns()), to_timespec(value_ns)};
  if (::timerfd_settime(fd.get(), static_cast<int>(flags), &setting, nullptr) != 0) {
    return fail(system_error("set a timerfd"));
  }
  if (expired) {
    pollfd polled{fd.get(), POLLIN, 0};
    ::poll(&polled, 1, kExpiryMs);
  }
  std::uint64_t ticks = file.ticks();
  // It may have expired already, of which the ticks that are set say nothing.
  std::uint64_t since = 0;
  if (pollfd polled{fd.get(), POLLIN, 0};
      ticks != 0 && !expired && ::poll(&polled, 1, 0) == 1 &&
      ::read(fd.get(), &since, sizeof(since)) == sizeof(since)) {
    ticks += since;
  }
  if (ticks != 0 && ::ioctl(fd.get(), TFD_IOC_SET_TICKS, &ticks) != 0) {
    return fail(system_error("set the ticks of a timerfd", {},
                             "the kernel needs CONFIG_CHECKPOINT_RESTORE"));
  }
  MIGRATE_TRY(set_flags(fd.get(), file.flags()));
  return fd;
}

constexpr std::array kTimerfdLines = std::to_array<ShownLine>({
    {.name = "clockid", .how = "of a timerfd"},
    {.name = "ticks", .how = "of a timerfd"},
    {.name = "settime flags", .how = "of a timerfd"},
    {.name = "it_value", .how = "of a timerfd, less the time that has gone by"},
    {.name = "it_interval", .how = "of a timerfd"},
});

}  // namespace

constinit const Carrier kTimerfd{
    .kind = wire::OpenFile::TIMERFD,
    .name = "timerfd",
    .lines = kTimerfdLines,
    .claims_link = [](const FindContext& /*context*/,
                      const Sighting& seen) { return seen.link == "anon_inode:[timerfd]"; },
    .find = find_timerfd,
    .has_state = [](const wire::OpenFile& /*file*/) { return true; },
    .advance = advance_timerfd,
    .flaw = flaw_of_timerfd,
    .make = make_timerfd,
};

}  // namespace migrate::carriers
