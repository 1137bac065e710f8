// A descriptor that refers to the process itself (pidfd_open(2)): made anew of what it is then.
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>

#include "libmigrate/carriers/internal/table.h"
#include "libmigrate/carriers/internal/tools.h"
#include "libmigrate/proc/proc_text.h"

namespace migrate::carriers {
namespace {

constexpr std::uint32_t kOfThread = O_EXCL;  // PIDFD_THREAD

bool find_pidfd(FindContext& context, const Sighting& seen, wire::OpenFile& /*file*/) {
  const auto process = static_cast<std::uint64_t>(context.process());
  if (number_field(seen.details, "Pid:") != process || (seen.flags & kOfThread) != 0) {
    return context.refuse("PIDFD", seen);
  }
  return true;
}

Result<UniqueFd> make_pidfd(MakeContext& context, const wire::OpenFile& file) {
  UniqueFd made =
      MIGRATE_TRY(owned(::syscall(SYS_pidfd_open, context.process(), 0), "make a pidfd"));
  MIGRATE_TRY(set_flags(made.get(), file.flags()));
  return made;
}

constexpr std::array kPidfdLines = std::to_array<ShownLine>({
    {.name = "Pid", .how = "its own; of others refused (PIDFD)"},
    {.name = "NSpid", .how = "its own; of others refused (PIDFD)"},
});

}  // namespace

constinit const Carrier kOwnPidfd{
    .kind = wire::OpenFile::PIDFD,
    .name = "pidfd",
    .lines = kPidfdLines,
    .claims_link =
        [](const FindContext& /*context*/, const Sighting& seen) {
          return seen.link == "anon_inode:[pidfd]" || seen.link.starts_with("pidfd:");
        },
    .find = find_pidfd,
    .make = make_pidfd,
};

}  // namespace migrate::carriers
