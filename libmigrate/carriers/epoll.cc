// A set of watched files (epoll(7)), which the process makes anew when all of them are there.
#include <fmt/core.h>
#include <linux/kcmp.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <map>

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

// A watch belongs to an open file, not to the number it was made with, which may have been closed
// or used again since.
void settle_epoll(FindContext& context, std::uint32_t number, wire::OpenFile& file) {
  std::map<std::uint32_t, std::uint32_t> same_number;
  for (const wire::EpollWatch& watch : file.watches()) {
    const std::uint32_t target = watch.target();
    kcmp_epoll_slot slot{number, target, same_number[target]++};
    const pid_t process = context.process();
    if (::syscall(SYS_kcmp, process, process, KCMP_EPOLL_TFD, target, &slot) != 0) {
      context.refuse("EPOLL_STALE", Sighting{.number = number, .link = kEpollLink},
                     fmt::format("number {}", target));
    }
  }
}

void connect_epoll(Script& script, std::uint32_t number, const wire::OpenFile& file) {
  for (const wire::EpollWatch& watch : file.watches()) {
    epoll_event event{};
    event.events = watch.events();
    event.data.u64 = watch.data();
    script.must("watch", SYS_epoll_ctl,
                {number, EPOLL_CTL_ADD, watch.target(), script.put_value(event)},
                descriptor_name(watch.target()));
  }
}

}  // namespace

constinit const Carrier kEpoll{
    .kind = wire::OpenFile::EPOLL,
    .name = "epoll",
    .claims_link = [](const FindContext& /*context*/,
                      const Sighting& seen) { return seen.link == kEpollLink; },
    .find = find_epoll,
    .settle = settle_epoll,
    .has_state = [](const wire::OpenFile& /*file*/) { return true; },
    .make = [](MakeContext& /*context*/, const wire::OpenFile& /*file*/) -> Result<UniqueFd> {
      return owned(::epoll_create1(EPOLL_CLOEXEC), "make an epoll set");
    },
    .connect = connect_epoll,
};

}  // namespace migrate::carriers
