// Signals by reading (signalfd(2)): the mask is all of it; what is pending belongs to the threads.
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>

#include "libmigrate/carriers/internal/table.h"
#include "libmigrate/carriers/internal/tools.h"
#include "libmigrate/proc/proc_text.h"

namespace migrate::carriers {
namespace {

bool find_signalfd(FindContext& context, const Sighting& seen, wire::OpenFile& file) {
  if (!find_field(seen.details, "sigmask:")) {
    return context.refuse("UNKNOWN_DESCRIPTOR", seen, "the kernel does not show its state");
  }
  file.set_signal_mask(number_field(seen.details, "sigmask:", 16));
  return true;
}

Result<UniqueFd> make_signalfd(MakeContext& /*context*/, const wire::OpenFile& file) {
  const std::uint64_t mask = file.signal_mask();
  // The raw call: glibc's wrapper takes its own, larger sigset_t.
  UniqueFd made = MIGRATE_TRY(
      owned(::syscall(SYS_signalfd4, -1, &mask, sizeof(mask), SFD_CLOEXEC), "make a signalfd"));
  MIGRATE_TRY(set_flags(made.get(), file.flags()));
  return made;
}

constexpr std::array kSignalfdLines = std::to_array<ShownLine>({
    {.name = "sigmask", .how = "of a signalfd"},
});

}  // namespace

constinit const Carrier kSignalfd{
    .kind = wire::OpenFile::SIGNALFD,
    .name = "signalfd",
    .lines = kSignalfdLines,
    .claims_link = [](const FindContext& /*context*/,
                      const Sighting& seen) { return seen.link == "anon_inode:[signalfd]"; },
    .find = find_signalfd,
    .make = make_signalfd,
};

}  // namespace migrate::carriers
