// A counter of the kernel's (eventfd(2)), carried by its value.
#include <sys/eventfd.h>
#include <unistd.h>

#include <array>

#include "libmigrate/carriers/internal/table.h"
#include "libmigrate/carriers/internal/tools.h"
#include "libmigrate/proc/proc_text.h"

namespace migrate::carriers {
namespace {

bool find_eventfd(FindContext& context, const Sighting& seen, wire::OpenFile& file) {
  if (!find_field(seen.details, "eventfd-count:") ||
      !find_field(seen.details, "eventfd-semaphore:")) {
    return context.refuse("UNKNOWN_DESCRIPTOR", seen, "the kernel does not show its state");
  }
  file.set_event_count(number_field(seen.details, "eventfd-count:", 16));
  file.set_event_semaphore(number_field(seen.details, "eventfd-semaphore:") != 0);
  return true;
}

const char* flaw_of_eventfd(const wire::Objects& /*objects*/, const wire::OpenFile& file) {
  constexpr std::uint64_t kTooMany = ~0ULL;  // eventfd(2): the most is one less.
  return file.event_count() < kTooMany ? nullptr : "event_count of files";
}

Result<UniqueFd> make_eventfd(MakeContext& /*context*/, const wire::OpenFile& file) {
  const int kind = file.event_semaphore() ? EFD_SEMAPHORE : 0;
  UniqueFd fd =
      MIGRATE_TRY(owned(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK | kind), "make an eventfd"));
  const std::uint64_t count = file.event_count();
  if (count != 0 && ::write(fd.get(), &count, sizeof(count)) != sizeof(count)) {
    return fail(system_error("fill an eventfd"));
  }
  MIGRATE_TRY(set_flags(fd.get(), file.flags()));
  return fd;
}

constexpr std::array kEventfdLines = std::to_array<ShownLine>({
    {.name = "eventfd-count", .how = ""},
    {.name = "eventfd-id", .how = "a number of this kernel's", .is_carried = false},
    {.name = "eventfd-semaphore", .how = ""},
});

}  // namespace

constinit const Carrier kEventfd{
    .kind = wire::OpenFile::EVENTFD,
    .name = "eventfd",
    .lines = kEventfdLines,
    .claims_link = [](const FindContext& /*context*/,
                      const Sighting& seen) { return seen.link == "anon_inode:[eventfd]"; },
    .find = find_eventfd,
    .has_state = [](const wire::OpenFile& /*file*/) { return true; },
    .flaw = flaw_of_eventfd,
    .make = make_eventfd,
};

}  // namespace migrate::carriers
