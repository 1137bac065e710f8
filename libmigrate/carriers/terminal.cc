// A terminal: at the destination a pseudo-terminal, which the relay feeds from the one at home. All
// open files that lead to one terminal, by whatever name, lead to one there, too.
#include "libmigrate/proc/terminal.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <algorithm>
#include <string>

#include "base/file.h"
#include "libmigrate/carriers/internal/table.h"
#include "libmigrate/carriers/internal/terminal_pair.h"
#include "libmigrate/carriers/internal/tools.h"
#include "libmigrate/proc/terminal_of_process.h"

namespace migrate::carriers {
namespace {

constexpr unsigned kConsoles = 4;
constexpr unsigned kOthers = 5;  // /dev/tty, /dev/console, /dev/ptmx
constexpr int kMostTerminals = 64;

bool is_terminal(unsigned major_number, unsigned minor_number) {
  constexpr unsigned kMasterMinor = 2;  // /dev/ptmx is the other side
  constexpr unsigned kFirstPty = 136;
  constexpr unsigned kLastPty = 143;
  return major_number == kConsoles || (major_number == kOthers && minor_number != kMasterMinor) ||
         (major_number >= kFirstPty && major_number <= kLastPty);
}

bool is_dev_tty(const wire::FileIdentity& identity) {
  return identity.device_major() == kOthers && identity.device_minor() == 0;
}

wire::Terminal* terminal_of(wire::Objects& objects, std::uint64_t device) {
  const auto found =
      std::ranges::find(*objects.mutable_terminals(), device, &wire::Terminal::device);
  return found == objects.mutable_terminals()->end() ? nullptr : &*found;
}

// The node by which it is open, if it has one of its own.
std::uint64_t instance_of(int fd, const wire::FileIdentity& identity, std::uint32_t& permissions) {
  struct stat status {};
  if (is_dev_tty(identity) || ::fstat(fd, &status) != 0) {
    return 0;
  }
  permissions = status.st_mode & 0777U;
  return status.st_dev;
}

Result<wire::Terminal> describe(FindContext& context, int fd, std::uint64_t device) {
  const TerminalModes modes = MIGRATE_TRY(read_modes(fd));
  const TerminalSize size = MIGRATE_TRY(read_size(fd));
  const TerminalOfProcess own =
      MIGRATE_TRY(read_terminal_of_process(context.directory(), "../stat"));
  wire::Terminal terminal;
  terminal.set_device(device);
  terminal.set_stream(context.known_terminal(device).value_or(0));
  terminal.set_modes(modes.to_bytes());
  terminal.set_rows(size.rows);
  terminal.set_columns(size.columns);
  terminal.set_width_pixels(size.width_pixels);
  terminal.set_height_pixels(size.height_pixels);
  terminal.set_permissions(0600);
  terminal.set_is_controlling(own.device == device);
  terminal.set_leads_session(own.device == device && own.leads_session);
  terminal.set_in_foreground(own.device == device && own.in_foreground);
  return terminal;
}

bool find_terminal(FindContext& context, const Sighting& seen, wire::OpenFile& file) {
  const UniqueFd fd = context.fetch(seen.number);
  const auto device = fd.valid() ? terminal_device(fd.get())
                                 : Result<std::uint64_t>(fail(system_error("fetch", "terminal")));
  if (!device) {
    return context.refuse("TERMINAL_STATE", seen, "it answers no questions");
  }
  if (const auto is_carried = find_slave_of_pair(context, seen, fd, file)) {
    return *is_carried;
  }
  if (context.is_guest() && !context.known_terminal(*device)) {
    return context.refuse("TERMINAL_ABROAD", seen);
  }
  if (const std::string peculiarity = peculiarity_of_terminal(fd.get()); !peculiarity.empty()) {
    return context.refuse("TERMINAL_STATE", seen, peculiarity);
  }
  wire::Terminal* terminal = terminal_of(context.objects(), *device);
  if (terminal == nullptr) {
    auto described = describe(context, fd.get(), *device);
    if (!described) {
      return context.refuse("TERMINAL_STATE", seen, described.error().message());
    }
    terminal = context.objects().add_terminals();
    *terminal = std::move(*described);
  }
  std::uint32_t permissions = 0;
  const std::uint64_t instance = instance_of(fd.get(), file.identity(), permissions);
  if (instance != 0 && terminal->instance() != 0 && terminal->instance() != instance) {
    return context.refuse("TERMINAL_STATE", seen, "another terminal has the same number");
  }
  if (instance != 0) {
    terminal->set_instance(instance);
    terminal->set_permissions(permissions);
  }
  file.set_position(*device);
  return true;
}

// The stream has the number of the terminal's lowest descriptor.
void settle_terminal(FindContext& context, std::uint32_t number, wire::OpenFile& file) {
  wire::Terminal* const terminal = terminal_of(context.objects(), file.position());
  file.set_position(0);
  if (terminal->stream() == 0) {
    terminal->set_stream(
        context.stream_to(number, "terminal " + std::to_string(terminal->device())));
  }
  file.set_object(terminal->stream());
  file.set_takes_control(terminal->leads_session());
}

const char* flaw_of_terminal(const wire::Objects& objects, const wire::OpenFile& file) {
  if (objects.terminals_size() > kMostTerminals) {
    return "number of terminals";
  }
  const auto terminal =
      std::ranges::find(objects.terminals(), file.object(), &wire::Terminal::stream);
  if (terminal == objects.terminals().end()) {
    return "terminal";
  }
  return terminal->modes().size() == sizeof(TerminalModes) ? nullptr : "modes of a terminal";
}

Result<UniqueFd> make_terminal(MakeContext& context, const wire::OpenFile& file) {
  const int slave = MIGRATE_TRY(context.relay_end(file.object()));
  // Never our own controlling terminal.
  return open_file("/proc/self/fd/" + std::to_string(slave),
                   static_cast<int>(file.flags() & ~kCreationFlags) | O_NOCTTY);
}

void take_control(Script& script, std::uint32_t number, const wire::OpenFile& file) {
  if (file.takes_control()) {
    script.must("take", SYS_ioctl, {number, TIOCSCTTY, 0}, "controlling terminal");
  }
}

}  // namespace

constinit const Carrier kTerminal{
    .kind = wire::OpenFile::TERMINAL,
    .name = "terminal",
    .claims_file =
        [](const wire::FileIdentity& identity) {
          return S_ISCHR(identity.mode()) &&
                 is_terminal(identity.device_major(), identity.device_minor());
        },
    .find = find_terminal,
    .settle = settle_terminal,
    .flaw = flaw_of_terminal,
    .make = make_terminal,
    .connect = take_control,
};

}  // namespace migrate::carriers
