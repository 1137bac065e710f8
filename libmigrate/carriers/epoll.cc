// A set of watched files (epoll(7)), which the process makes anew when all of them are there.
#include <fmt/core.h>
#include <linux/kcmp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <map>

#include "base/file.h"
#include "libmigrate/carriers/epoll_watch.h"
#include "libmigrate/carriers/internal/table.h"
#include "libmigrate/carriers/internal/tools.h"
#include "libmigrate/proc/proc_text.h"

namespace migrate::carriers {
namespace {

constexpr const char* kEpollLink = "anon_inode:[eventpoll]";

// Lines "tfd: 4 events: 19 data: 4d pos:0 ino:40e sdev:10", in the kernel's order.
bool find_epoll(FindContext& /*context*/, const Sighting& seen, wire::OpenFile& file) {
  std::string_view text = seen.details;
  while (!text.empty()) {
    std::string_view line = take_line(text);
    if (!line.starts_with("tfd:")) {
      continue;
    }
    take_word(line);
    const auto descriptor = parse_number(take_word(line));
    take_word(line);
    const auto events = parse_number(take_word(line), 16);
    take_word(line);
    const auto data = parse_number(take_word(line), 16);
    wire::EpollWatch& watch = *file.add_watches();
    watch.set_target(static_cast<std::uint32_t>(descriptor.value_or(0)));
    watch.set_events(static_cast<std::uint32_t>(events.value_or(0)));
    watch.set_data(data.value_or(0));
  }
  return true;
}

constexpr std::uint32_t kFiring = POLLIN | POLLOUT;

// What it is fired by is added to what the rules have seen of it: nothing else may come that way.
const char* flaw_of_epoll(const wire::Objects& /*objects*/, const wire::OpenFile& file) {
  for (const wire::EpollWatch& watch : file.watches()) {
    if (watch.ready() != 0 && (!has_fired(watch) || (watch.ready() & ~kFiring) != 0)) {
      return "ready of an epoll watch";
    }
  }
  return nullptr;
}

// What a fired watch of `target` would fire by at once when it is made at the destination: of what
// has its content by then. A relayed stream has not, and signals are not ours to look at.
std::uint32_t ready_events(FindContext& context, std::uint32_t target) {
  const UniqueFd fd = context.fetch(target);
  const std::string link =
      fd.valid() ? read_link("/proc/self/fd/" + std::to_string(fd.get())).value_or("") : "";
  const PipeSeen* pipe = link.starts_with("pipe:[") ? &context.pipe(inode_in(link)) : nullptr;
  const bool is_inside = pipe != nullptr && pipe->readable && pipe->writable;
  if (!is_inside && link != "anon_inode:[eventfd]" && link != "anon_inode:[timerfd]") {
    return 0;
  }
  pollfd state{.fd = fd.get(), .events = kFiring, .revents = 0};
  return ::poll(&state, 1, 0) > 0 ? static_cast<std::uint32_t>(state.revents) & kFiring : 0;
}

// A watch belongs to an open file, not to the number it was made with, which may have been closed
// or used again since.
void settle_epoll(FindContext& context, std::uint32_t number, wire::OpenFile& file) {
  std::map<std::uint32_t, std::uint32_t> same_number;
  for (wire::EpollWatch& watch : *file.mutable_watches()) {
    const std::uint32_t target = watch.target();
    kcmp_epoll_slot slot{number, target, same_number[target]++};
    const pid_t process = context.process();
    if (::syscall(SYS_kcmp, process, process, KCMP_EPOLL_TFD, target, &slot) != 0) {
      context.refuse("EPOLL_STALE", Sighting{.number = number, .link = kEpollLink},
                     fmt::format("number {}", target));
    } else if (has_fired(watch)) {
      watch.set_ready(ready_events(context, target));
    }
  }
}

void add_watch(Script& script, std::uint32_t number, const wire::EpollWatch& watch) {
  epoll_event event{};
  event.events = watch.events() | watch.ready();
  event.data.u64 = watch.data();
  script.must("watch", SYS_epoll_ctl,
              {number, EPOLL_CTL_ADD, watch.target(), script.put_value(event)},
              descriptor_name(watch.target()));
}

// A watch is without any event only once it has fired: Linux adds errors and hang-ups to all that
// is asked for. So those that have fired do so again, while no other is there to be told.
void connect_epoll(Script& script, std::uint32_t number, const wire::OpenFile& file) {
  for (const wire::EpollWatch& watch : file.watches()) {
    if (watch.ready() != 0) {
      add_watch(script, number, watch);
      script.call(SYS_epoll_pwait, {number, script.reserve(sizeof(epoll_event)), 1, 0, 0, 0});
    }
  }
  for (const wire::EpollWatch& watch : file.watches()) {
    if (watch.ready() == 0) {
      add_watch(script, number, watch);
    }
  }
}

constexpr std::array kEpollLines = std::to_array<ShownLine>({
    {.name = "tfd", .how = "watches of an epoll set; EPOLL_STALE"},
});

}  // namespace

constinit const Carrier kEpoll{
    .kind = wire::OpenFile::EPOLL,
    .name = "epoll",
    .lines = kEpollLines,
    .claims_link = [](const FindContext& /*context*/,
                      const Sighting& seen) { return seen.link == kEpollLink; },
    .find = find_epoll,
    .settle = settle_epoll,
    .has_state = [](const wire::OpenFile& /*file*/) { return true; },
    .flaw = flaw_of_epoll,
    .create =
        [](Script& script, const wire::Objects& /*objects*/, const wire::OpenFile& /*file*/) {
          return script.must("make an epoll set", SYS_epoll_create1, {EPOLL_CLOEXEC});
        },
    .make = [](MakeContext& context, const wire::OpenFile& /*file*/) -> Result<UniqueFd> {
      return context.created();
    },
    .connect = connect_epoll,
};

}  // namespace migrate::carriers
