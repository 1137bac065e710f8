// A pseudo-terminal both of whose sides the process has, or its master alone after the last of the
// other side was closed: made anew, with what waits in it both ways.
#include "libmigrate/carriers/internal/terminal_pair.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <limits>
#include <numeric>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/file.h"
#include "libmigrate/carriers/internal/table.h"
#include "libmigrate/carriers/internal/tools.h"
#include "libmigrate/proc/proc_text.h"
#include "libmigrate/proc/terminal.h"
#include "libmigrate/proc/terminal_of_process.h"

namespace migrate::carriers {
namespace {

constexpr unsigned kSlaves = 136;  // UNIX98_PTY_SLAVE_MAJOR: its minor numbers are all there are
constexpr int kMostTerminalPairs = 64;
constexpr std::size_t kMostOutput = std::size_t{64} << 10U;  // The kernel keeps about 20 KiB.
constexpr int kMostPieces = 4096;                            // Of input.

wire::TerminalPair& terminal_pair_of(wire::Objects& objects, std::uint64_t object) {
  return *objects.mutable_terminal_pairs(static_cast<int>(object / 2));
}

bool is_slave_side(const wire::OpenFile& file) {
  return file.object() % 2 != 0;
}

// Each look has the kernel finish what was written to the other side.
short look(int fd, short events) {
  pollfd polled{fd, events, 0};
  return ::poll(&polled, 1, 0) > 0 ? polled.revents : short{0};
}

std::optional<unsigned> number_of_master(int fd) {
  unsigned number = 0;
  return ::ioctl(fd, TIOCGPTN, &number) == 0 ? std::optional(number) : std::nullopt;
}

// The slave side, opened once more.
Result<UniqueFd> open_slave(int master) {
  return owned(::ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC),
               "open the slave of a pseudo-terminal");
}

Result<void> set_packets(int master, bool wanted) {
  const int value = wanted ? 1 : 0;
  return ::ioctl(master, TIOCPKT, &value) == 0
             ? Result<void>()
             : fail(system_error("set the packet mode of a pseudo-terminal"));
}

Result<void> set_lock(int master, bool wanted) {
  const int value = wanted ? 1 : 0;
  return ::ioctl(master, TIOCSPTLCK, &value) == 0
             ? Result<void>()
             : fail(system_error("lock or unlock a pseudo-terminal"));
}

// Whether one of the process's descriptors is `wanted`; they are looked at in their order.
template <typename Wanted>
bool has_descriptor(const FindContext& context, Wanted wanted) {
  for (const std::uint32_t number : numbered_entries(context.directory(), "/proc/PID/fd")
                                        .value_or(std::vector<std::uint32_t>())) {
    const auto link = read_link_at(context.directory(), std::to_string(number));
    if (link && wanted(number, *link)) {
      return true;
    }
  }
  return false;
}

bool has_slave(const FindContext& context, unsigned number) {
  return has_descriptor(context, [&](std::uint32_t descriptor, const std::string& link) {
    if (!link.starts_with("/dev/pts/") && link != "/dev/tty") {
      return false;
    }
    const UniqueFd fd = context.fetch(descriptor);
    return fd.valid() && terminal_device(fd.get()).value_or(0) == gnu_dev_makedev(kSlaves, number);
  });
}

// What keeps the side of the master from being carried; empty: nothing.
std::string peculiarity_of_master(int master) {
  int discipline = 0;
  int exclusive = 0;
  if (::ioctl(master, TIOCGETD, &discipline) != 0 || discipline != 0) {  // N_TTY
    return fmt::format("its master has line discipline {}", discipline);
  }
  if (::ioctl(master, TIOCGEXCL, &exclusive) == 0 && exclusive != 0) {
    return "it is open for one program alone (TIOCEXCL)";
  }
  return {};
}

// Fills in whose terminal it is. Gives what keeps it from being carried; empty: nothing.
std::string find_session(const FindContext& context, int master, wire::TerminalPair& pair) {
  pid_t session = 0;
  if (::ioctl(master, TIOCGSID, &session) != 0) {
    return {};  // It is nobody's.
  }
  const auto own = read_terminal_of_process(context.directory(), "../stat");
  if (!own || session != context.process() || !own->leads_session) {
    return "it is the terminal of another session";
  }
  if (!own->in_foreground) {
    return "its foreground is another process group";
  }
  pair.set_is_controlling(true);
  return {};
}

bool takes_output(int slave) {
  return (look(slave, POLLOUT) & POLLOUT) != 0;
}

// Why what waits in it cannot be taken out and put back just now; empty: it can be. `slave`: -1 if
// it is closed.
std::string reason_to_wait(int master, int slave) {
  constexpr int kMostInput = 4000;  // Of kMostTerminalInput.
  int packets = 0;
  int input = 0;
  if (::ioctl(master, TIOCGPKT, &packets) == 0 && packets != 0 &&
      (look(master, POLLPRI) & POLLPRI) != 0) {
    return "its packet mode tells what the program has not read";
  }
  if ((look(master, POLLOUT) & POLLOUT) == 0) {
    return "it takes no more input";
  }
  if (slave >= 0 && ::ioctl(slave, FIONREAD, &input) == 0 && input > kMostInput) {
    return "it holds as much input as it can";
  }
  return {};
}

// What is asked of the slave side, which somebody in the process has open: that it is opened once
// more, and closed, is seen by nobody. Gives what is against it; empty: nothing.
std::string describe_slave(FindContext& context, int master, wire::TerminalPair& pair) {
  if (pair.is_locked()) {
    return "it is locked while it is open";
  }
  const auto slave = open_slave(master);
  struct stat status {};
  if (!slave || ::fstat(slave->get(), &status) != 0) {
    return slave ? "it answers no questions" : slave.error().message();
  }
  if (std::string peculiarity = peculiarity_of_terminal(slave->get()); !peculiarity.empty()) {
    return peculiarity;
  }
  pair.set_instance(status.st_dev);
  pair.set_permissions(status.st_mode & 0777U);
  pair.set_owner(status.st_uid);
  pair.set_group(status.st_gid);
  context.expect_private_terminal(
      status.st_dev, status.st_rdev, pair.is_controlling(),
      fmt::format("descriptor {} -> /dev/ptmx (pts/{})", pair.master(), pair.number()));
  return {};
}

Result<void> describe_modes(int master, wire::TerminalPair& pair) {
  const TerminalModes modes = MIGRATE_TRY(read_modes(master));
  const TerminalSize size = MIGRATE_TRY(read_size(master));
  int locked = 0;
  int packets = 0;
  if (::ioctl(master, TIOCGPTLCK, &locked) != 0 || ::ioctl(master, TIOCGPKT, &packets) != 0) {
    return fail(system_error("ask", "a pseudo-terminal"));
  }
  pair.set_modes(modes.to_bytes());
  pair.set_rows(size.rows);
  pair.set_columns(size.columns);
  pair.set_width_pixels(size.width_pixels);
  pair.set_height_pixels(size.height_pixels);
  pair.set_is_locked(locked != 0);
  pair.set_has_packets(packets != 0);
  return {};
}

// Everything but what waits in it. Gives what is against it; empty: nothing.
std::string describe(FindContext& context, int master, wire::TerminalPair& pair) {
  if (!can_type_input()) {
    return "this host lets nobody put input back into a terminal (CAP_SYS_ADMIN)";
  }
  if (pair.number() > kMostTerminalNumber) {
    return fmt::format("its number is above {}", kMostTerminalNumber);
  }
  if (const auto described = describe_modes(master, pair); !described) {
    return described.error().message();
  }
  std::string against = peculiarity_of_master(master);
  if (against.empty()) {
    against = find_session(context, master, pair);
  }
  const bool is_closed = (look(master, 0) & POLLHUP) != 0;
  if (!against.empty() || is_closed) {
    return against;
  }
  // One that was never opened would be a closed one, had we opened it.
  return has_slave(context, pair.number())
             ? describe_slave(context, master, pair)
             : "its other side is open elsewhere, or has never been opened";
}

// The index of the pair with this master; nothing after a refusal.
std::optional<std::uint64_t> place_of(FindContext& context, const Sighting& seen,
                                      std::uint32_t number, int master) {
  wire::Objects& objects = context.objects();
  const auto known =
      std::ranges::find(objects.terminal_pairs(), number, &wire::TerminalPair::master);
  if (known != objects.terminal_pairs().end()) {
    return known - objects.terminal_pairs().begin();
  }
  wire::TerminalPair pair;
  pair.set_master(number);
  pair.set_number(number_of_master(master).value_or(std::numeric_limits<unsigned>::max()));
  if (const std::string against = describe(context, master, pair); !against.empty()) {
    context.refuse("TERMINAL_PAIR", seen, against);
    return std::nullopt;
  }
  if (objects.terminal_pairs_size() == kMostTerminalPairs) {
    context.refuse("TERMINAL_PAIR", seen, fmt::format("more than {}", kMostTerminalPairs));
    return std::nullopt;
  }
  const UniqueFd slave =
      pair.instance() != 0 ? open_slave(master).value_or(UniqueFd()) : UniqueFd();
  if (const std::string reason = reason_to_wait(master, slave.get()); !reason.empty()) {
    context.refuse("TERMINAL_BUSY", seen, reason);
    return std::nullopt;
  }
  *objects.add_terminal_pairs() = std::move(pair);
  return objects.terminal_pairs_size() - 1;
}

bool find_master(FindContext& context, const Sighting& seen, wire::OpenFile& file) {
  const UniqueFd master = context.fetch(seen.number);
  if (!master.valid()) {
    return context.refuse("TERMINAL_PAIR", seen, "it answers no questions");
  }
  const auto place = place_of(context, seen, seen.number, master.get());
  file.set_object(2 * place.value_or(0));
  return place.has_value();
}

std::string take_output(int master) {
  std::string all;
  std::array<char, 4096> bytes;
  while (all.size() < kMostOutput && (look(master, POLLIN) & POLLIN) != 0) {
    const ssize_t count = ::read(master, bytes.data(), bytes.size());
    if (count <= 0) {
      break;
    }
    all.append(bytes.data(), static_cast<std::size_t>(count));
  }
  return all;
}

// Writes all of it where as much was before. The kernel has room for fewer bytes the more are
// written at once: a terminal that is nearly full is filled byte by byte. What does not fit at once
// is on its way to the master.
Result<void> write_output(int slave, std::string_view output) {
  constexpr std::size_t kMostAtOnce = 12'000;
  constexpr int kMostTries = 1000;
  const std::size_t piece = output.size() > kMostAtOnce ? 1 : output.size();
  for (int tries = 0; !output.empty();) {
    const ssize_t count = ::write(slave, output.data(), std::min(piece, output.size()));
    if (count > 0) {
      output.remove_prefix(static_cast<std::size_t>(count));
    } else if (errno != EAGAIN || ++tries == kMostTries) {
      return fail(system_error("put output into", "a pseudo-terminal"));
    } else {
      ::usleep(100);
    }
  }
  return {};
}

// Lets output that is stopped flow. Gives what has stopped it; some of that is undone only with the
// modes (raw_modes()).
wire::TerminalPair::Flow let_flow(int slave) {
  if (takes_output(slave)) {
    return wire::TerminalPair::FLOWS;
  }
  ::ioctl(slave, TCXONC, TCOON);
  return takes_output(slave) ? wire::TerminalPair::STOPPED_BY_CALL
                             : wire::TerminalPair::STOPPED_BY_CHARACTER;
}

Result<void> stop_flow(int slave, wire::TerminalPair::Flow flow, const TerminalModes& modes) {
  if (flow == wire::TerminalPair::STOPPED_BY_CALL && ::ioctl(slave, TCXONC, TCOOFF) != 0) {
    return fail(system_error("stop the output of", "a pseudo-terminal"));
  }
  const char stop = static_cast<char>(modes.characters.at(VSTOP));
  const bool can_stop = (modes.input & static_cast<std::uint32_t>(IXON)) != 0 && stop != 0;
  return flow == wire::TerminalPair::STOPPED_BY_CHARACTER && can_stop
             ? type_input(slave, {&stop, 1})
             : Result<void>();
}

// Puts what waited there into a pseudo-terminal that is empty, and leaves it in `modes`.
Result<void> put_content(int slave, const wire::TerminalPair& pair, const TerminalModes& modes) {
  std::vector<TerminalInput> input;
  for (const wire::TerminalPair::Input& piece : pair.input()) {
    input.push_back({piece.content(), piece.is_complete()});
  }
  MIGRATE_TRY(write_modes(slave, raw_modes(modes)));
  Result<void> done = write_output(slave, pair.output());
  MIGRATE_TRY(put_input(slave, input, modes));
  MIGRATE_TRY(stop_flow(slave, pair.flow(), modes));
  return done;
}

// There is no looking at what waits: it is taken out and put back. A worker that is killed in
// between loses it.
Result<void> exchange_content(int master, int slave, wire::TerminalPair& pair) {
  const TerminalModes modes = MIGRATE_TRY(TerminalModes::from_bytes(pair.modes()));
  *pair.mutable_output() = take_output(master);
  pair.set_flow(let_flow(slave));
  pair.clear_input();
  for (TerminalInput& piece : MIGRATE_TRY(take_input(slave, modes))) {
    wire::TerminalPair::Input& added = *pair.add_input();
    added.set_content(std::move(piece.bytes));
    added.set_is_complete(piece.is_complete);
  }
  *pair.mutable_output() += take_output(master);  // Echo that has waited for the output to flow.
  return put_content(slave, pair, modes);
}

// The node of a slave side that is closed, and its content.
Result<void> capture_closed(int master, wire::TerminalPair& pair) {
  MIGRATE_TRY(set_lock(master, false));
  const auto slave = open_slave(master);
  MIGRATE_TRY(set_lock(master, pair.is_locked()));
  struct stat status {};
  if (!slave || ::fstat(slave->get(), &status) != 0) {
    return fail(slave ? system_error("ask", "a pseudo-terminal") : slave.error());
  }
  pair.set_permissions(status.st_mode & 0777U);
  pair.set_owner(status.st_uid);
  pair.set_group(status.st_gid);
  return exchange_content(master, slave->get(), pair);
}

Result<void> capture_open(int master, wire::TerminalPair& pair) {
  const UniqueFd slave = MIGRATE_TRY(open_slave(master));
  return exchange_content(master, slave.get(), pair);
}

Result<void> capture_pair(CaptureContext& context, std::uint32_t number,
                          const wire::OpenFile& file) {
  wire::TerminalPair& pair = terminal_pair_of(context.objects(), file.object());
  if (is_slave_side(file) || number != pair.master()) {
    return {};  // The master tells.
  }
  const UniqueFd master = MIGRATE_TRY(context.fetch(number));
  if (pair.has_packets()) {
    MIGRATE_TRY(set_packets(master.get(), false));
  }
  Result<void> done =
      pair.instance() == 0 ? capture_closed(master.get(), pair) : capture_open(master.get(), pair);
  if (pair.has_packets()) {
    MIGRATE_TRY(set_packets(master.get(), true));
  }
  return done;
}

std::uint64_t most_pair_bytes(const wire::Objects& objects) {
  return static_cast<std::uint64_t>(objects.terminal_pairs_size()) *
         (kMostOutput + 2 * kMostTerminalInput + std::uint64_t{kMostPieces} * 8);
}

const char* flaw_of_pair(const wire::Objects& objects, const wire::OpenFile& file) {
  if (file.object() / 2 >= static_cast<std::uint64_t>(objects.terminal_pairs_size()) ||
      objects.terminal_pairs_size() > kMostTerminalPairs) {
    return "terminal_pairs";
  }
  const wire::TerminalPair& pair = objects.terminal_pairs(static_cast<int>(file.object() / 2));
  const std::size_t input = std::accumulate(
      pair.input().begin(), pair.input().end(), std::size_t{0},
      [](std::size_t sum, const auto& piece) { return sum + piece.content().size() + 1; });
  if (pair.number() > kMostTerminalNumber || pair.output().size() > kMostOutput ||
      pair.input_size() > kMostPieces || input > 2 * kMostTerminalInput) {
    return "a terminal pair";
  }
  if (pair.instance() == 0 && is_slave_side(file)) {
    return "a closed side of a terminal pair";
  }
  return pair.modes().size() == sizeof(TerminalModes) ? nullptr : "modes of a terminal pair";
}

Result<void> fill(const wire::TerminalPair& pair, const MadeTerminalPair& made) {
  const auto small = [](std::uint32_t size) {
    return static_cast<std::uint16_t>(
        std::min<std::uint32_t>(size, std::numeric_limits<std::uint16_t>::max()));
  };
  const int slave = made.slave.get();
  const TerminalModes modes = MIGRATE_TRY(TerminalModes::from_bytes(pair.modes()));
  static_cast<void>(::fchown(slave, pair.owner(), pair.group()));
  if (::fchmod(slave, pair.permissions() & 0777U) != 0) {
    return fail(system_error("set the mode of a pseudo-terminal"));
  }
  MIGRATE_TRY(write_size(slave, {small(pair.rows()), small(pair.columns()),
                                 small(pair.width_pixels()), small(pair.height_pixels())}));
  return put_content(slave, pair, modes);
}

// Of the process's own devpts, where it finds the slave side by its name; by the name of the
// multiplexer by which its master was opened, if that leads there.
Result<PseudoTerminal> make_in_cell(pid_t process, std::string_view multiplexer, unsigned number) {
  const std::string folder = fmt::format("/proc/{}/root/dev/", process);
  struct stat theirs {};
  struct stat own {};
  if (multiplexer == "/dev/ptmx" && ::stat((folder + "pts").c_str(), &theirs) == 0) {
    auto made = make_pseudo_terminal(folder + "ptmx", number);
    if (made && ::fstat(made->slave.get(), &own) == 0 && own.st_dev == theirs.st_dev) {
      return made;
    }
  }
  return make_pseudo_terminal(folder + "pts/ptmx", number);
}

Result<MadeTerminalPair> make_pair(const MakeContext& context, std::uint64_t index) {
  const wire::Objects& objects = context.objects();
  const wire::TerminalPair& pair = objects.terminal_pairs(static_cast<int>(index));
  const auto file = std::ranges::find_if(objects.files(), [&](const wire::OpenFile& each) {
    return each.kind() == wire::OpenFile::TERMINAL_PAIR && each.object() == 2 * index;
  });
  const std::string name = file == objects.files().end() ? "" : file->identity().path();
  PseudoTerminal terminal = MIGRATE_TRY(make_in_cell(context.process(), name, pair.number()));
  MadeTerminalPair made{
      .master = std::move(terminal.master), .slave = std::move(terminal.slave), .is_made = true};
  if (number_of_master(made.master.get()) != pair.number()) {
    return fail(make_error(ErrorCode::kSystem, "make a pseudo-terminal",
                           fmt::format("/dev/pts/{}", pair.number()), "the number is taken"));
  }
  MIGRATE_TRY(fill(pair, made));
  MIGRATE_TRY(set_packets(made.master.get(), pair.has_packets()));
  MIGRATE_TRY(set_lock(made.master.get(), pair.is_locked()));
  if (pair.instance() == 0) {
    made.slave.reset();
  }
  return made;
}

Result<UniqueFd> make_side(MakeContext& context, const wire::OpenFile& file) {
  const std::uint64_t index = file.object() / 2;
  MadeTerminalPair& made = context.terminal_pair(index);
  if (!made.is_made) {
    made = MIGRATE_TRY(make_pair(context, index));
  }
  // open(2) adds O_LARGEFILE, which TIOCGPTPEER does not: fcntl(2) shows it.
  constexpr std::uint32_t kLargeFile = 0100000;
  // Never our own controlling terminal.
  const int flags = static_cast<int>(file.flags() & ~kCreationFlags) | O_NOCTTY;
  if (is_slave_side(file)) {
    return (file.flags() & kLargeFile) != 0
               ? open_file("/proc/self/fd/" + std::to_string(made.slave.get()), flags)
               : owned(::ioctl(made.master.get(), TIOCGPTPEER, flags), "open a pseudo-terminal");
  }
  if (std::exchange(made.is_given, true)) {
    return fail(make_error(ErrorCode::kCorrupt, "make a terminal", "a master that is open twice"));
  }
  MIGRATE_TRY(set_flags(made.master.get(), file.flags()));
  return owned(::fcntl(made.master.get(), F_DUPFD_CLOEXEC, 0), "duplicate a pseudo-terminal");
}

void take_control_of_pair(Script& script, std::uint32_t number, const wire::OpenFile& file) {
  if (file.takes_control()) {
    script.must("take", SYS_ioctl, {number, TIOCSCTTY, 0}, "controlling terminal");
  }
}

bool is_multiplexer(const wire::FileIdentity& identity) {
  constexpr unsigned kMajor = 5;
  constexpr unsigned kMinor = 2;
  return S_ISCHR(identity.mode()) && identity.device_major() == kMajor &&
         identity.device_minor() == kMinor;
}

constexpr std::array kTerminalPairLines = std::to_array<ShownLine>({
    {.name = "tty-index", .how = "of the master of a pseudo-terminal; above 255 refused"},
});

}  // namespace

std::optional<bool> find_slave_of_pair(FindContext& context, const Sighting& seen,
                                       const UniqueFd& fd, wire::OpenFile& file) {
  const std::uint64_t device = terminal_device(fd.get()).value_or(0);
  struct stat status {};
  if (gnu_dev_major(device) != kSlaves || ::fstat(fd.get(), &status) != 0) {
    return std::nullopt;
  }
  std::optional<bool> is_carried;
  has_descriptor(context, [&](std::uint32_t number, const std::string& link) {
    const UniqueFd master = link.ends_with("ptmx") ? context.fetch(number) : UniqueFd();
    if (!master.valid() || number_of_master(master.get()) != gnu_dev_minor(device)) {
      return false;
    }
    const auto place = place_of(context, seen, number, master.get());
    const auto instance =
        place ? context.objects().terminal_pairs(static_cast<int>(*place)).instance() : 0;
    // A /dev/tty has a node of its own.
    if (place && status.st_rdev == device && instance != status.st_dev) {
      return false;  // It has the same number in another devpts.
    }
    is_carried = place.has_value();
    if (place) {
      const auto& pair = context.objects().terminal_pairs(static_cast<int>(*place));
      file.set_kind(wire::OpenFile::TERMINAL_PAIR);
      file.set_object(2 * *place + 1);
      file.set_takes_control(pair.is_controlling());
    }
    return true;
  });
  return is_carried;
}

constinit const Carrier kTerminalPair{
    .kind = wire::OpenFile::TERMINAL_PAIR,
    .name = "pseudo-terminal",
    .lines = kTerminalPairLines,
    .claims_file = is_multiplexer,
    .find = find_master,
    .has_state = [](const wire::OpenFile& /*file*/) { return true; },
    .capture = capture_pair,
    .most_content_bytes = most_pair_bytes,
    .flaw = flaw_of_pair,
    .make = make_side,
    .connect = take_control_of_pair,
};

}  // namespace migrate::carriers
