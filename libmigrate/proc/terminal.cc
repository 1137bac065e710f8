#include "libmigrate/proc/terminal.h"

#include <fcntl.h>
#include <linux/kd.h>
#include <linux/vt.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/file.h"

namespace migrate {
namespace {

constexpr unsigned long kGetModes = _IOR('T', 0x2A, TerminalModes);  // TCGETS2
constexpr unsigned long kSetModes = _IOW('T', 0x2B, TerminalModes);  // TCSETS2
constexpr int kMostReads = 8192;  // Each line is at least a byte, or an end of file.

Error terminal_error(const char* what, int fd) {
  return system_error(what, "terminal at descriptor " + std::to_string(fd));
}

bool is_hung_up(int fd) {
  pollfd polled{fd, POLLIN, 0};
  return ::poll(&polled, 1, 0) > 0 && (polled.revents & (POLLHUP | POLLERR | POLLNVAL)) != 0;
}

// Waits for nothing: poll has the kernel finish what it has of the input.
bool has_input(int fd) {
  pollfd polled{fd, POLLIN, 0};
  return ::poll(&polled, 1, 0) > 0 && (polled.revents & POLLIN) != 0 &&
         (polled.revents & (POLLHUP | POLLERR)) == 0;
}

// Of a virtual console: what programs for screens set by ioctl_console(2).
std::string peculiarity_of_console(int fd) {
  int mode = KD_TEXT;
  if (::ioctl(fd, KDGETMODE, &mode) != 0) {
    return {};  // It is none.
  }
  int keyboard = K_UNICODE;
  vt_mode switching{};
  if (mode != KD_TEXT) {
    return "a console that shows graphics";
  }
  if (::ioctl(fd, KDGKBMODE, &keyboard) == 0 && keyboard != K_UNICODE && keyboard != K_XLATE) {
    return "a console whose keyboard is raw";
  }
  if (::ioctl(fd, VT_GETMODE, &switching) == 0 && switching.mode != VT_AUTO) {
    return "a console that a program switches";
  }
  return {};
}

// The modes in which `input` passes through the line discipline as it is, lines ending as they do;
// `end` ends a line that has no other end.
TerminalModes quiet_modes(TerminalModes modes, std::uint8_t end) {
  modes.input &= ~static_cast<std::uint32_t>(IGNBRK | BRKINT | PARMRK | INPCK | ISTRIP | INLCR |
                                             IGNCR | ICRNL | IUCLC | IXON | IXANY);
  modes.local &= ~static_cast<std::uint32_t>(ECHO | ECHOE | ECHOK | ECHONL | ECHOCTL | ECHOKE |
                                             ECHOPRT | ISIG | IEXTEN);
  if (modes.edits_lines()) {
    for (const int character : {VERASE, VKILL, VWERASE, VREPRINT, VLNEXT, VEOL, VEOL2}) {
      modes.characters.at(static_cast<std::size_t>(character)) = _POSIX_VDISABLE;
    }
    modes.characters.at(VEOF) = end;
  }
  return modes;
}

// A byte that is not in `bytes`, of which there are fewer than there can be in a line of its own;
// else that which ends no line.
std::uint8_t absent_from(std::string_view bytes) {
  for (int byte = 1; byte < 256; ++byte) {
    if (byte != '\n' && bytes.find(static_cast<char>(byte)) == std::string_view::npos) {
      return static_cast<std::uint8_t>(byte);
    }
  }
  return _POSIX_VDISABLE;
}

}  // namespace

std::string TerminalModes::to_bytes() const {
  std::string bytes(sizeof(*this), '\0');
  std::memcpy(bytes.data(), this, sizeof(*this));
  return bytes;
}

Result<TerminalModes> TerminalModes::from_bytes(std::string_view bytes) {
  TerminalModes modes;
  if (bytes.size() != sizeof(modes)) {
    return fail(make_error(ErrorCode::kCorrupt, "read", "the modes of a terminal"));
  }
  std::memcpy(&modes, bytes.data(), sizeof(modes));
  return modes;
}

bool TerminalModes::edits_lines() const {
  return (local & static_cast<std::uint32_t>(ICANON)) != 0;
}

bool TerminalModes::changes_output() const {
  return (output & static_cast<std::uint32_t>(OPOST)) != 0 &&
         (output & static_cast<std::uint32_t>(ONLCR)) != 0;
}

Result<TerminalModes> read_modes(int fd) {
  TerminalModes modes;
  if (::ioctl(fd, kGetModes, &modes) != 0) {
    return fail(terminal_error("read the modes of", fd));
  }
  return modes;
}

Result<void> write_modes(int fd, const TerminalModes& modes) {
  if (::ioctl(fd, kSetModes, &modes) != 0) {
    return fail(terminal_error("set the modes of", fd));
  }
  return {};
}

Result<TerminalSize> read_size(int fd) {
  winsize size{};
  if (::ioctl(fd, TIOCGWINSZ, &size) != 0) {
    return fail(terminal_error("read the size of", fd));
  }
  return TerminalSize{size.ws_row, size.ws_col, size.ws_xpixel, size.ws_ypixel};
}

Result<void> write_size(int fd, const TerminalSize& size) {
  const winsize wanted{size.rows, size.columns, size.width_pixels, size.height_pixels};
  if (::ioctl(fd, TIOCSWINSZ, &wanted) != 0) {
    return fail(terminal_error("set the size of", fd));
  }
  return {};
}

Result<std::uint64_t> terminal_device(int fd) {
  unsigned device = 0;
  if (::ioctl(fd, TIOCGDEV, &device) != 0) {
    return fail(terminal_error("identify", fd));
  }
  return device;
}

std::string peculiarity_of_terminal(int fd) {
  int discipline = 0;
  int lines = 0;
  int exclusive = 0;
  if (is_hung_up(fd)) {
    return "it was hung up";
  }
  if (::ioctl(fd, TIOCGETD, &discipline) != 0) {
    return "it answers no questions";
  }
  if (discipline != 0) {  // N_TTY
    return "it has line discipline " + std::to_string(discipline);
  }
  if (::ioctl(fd, TIOCMGET, &lines) == 0) {
    return "it is a serial line";
  }
  if (::ioctl(fd, TIOCGEXCL, &exclusive) == 0 && exclusive != 0) {
    return "it is open for one program alone (TIOCEXCL)";
  }
  termios old_locked{};  // Of the first version, as the kernel gives it: 36 bytes.
  if (::ioctl(fd, TIOCGLCKTRMIOS, &old_locked) == 0) {
    const auto* const bytes = reinterpret_cast<const unsigned char*>(&old_locked);
    constexpr std::size_t kKernelBytes = 36;
    if (std::any_of(bytes, bytes + kKernelBytes, [](unsigned char byte) { return byte != 0; })) {
      return "modes of it are locked (TIOCSLCKTRMIOS)";
    }
  }
  return peculiarity_of_console(fd);
}

TerminalModes raw_modes(const TerminalModes& modes) {
  TerminalModes raw = modes;
  raw.input &= static_cast<std::uint32_t>(IUTF8 | IXOFF);
  raw.output &= ~static_cast<std::uint32_t>(OPOST);
  raw.local = 0;
  raw.characters.at(VMIN) = 1;
  raw.characters.at(VTIME) = 0;
  return raw;
}

Result<std::vector<TerminalInput>> take_input(int fd, const TerminalModes& modes) {
  std::vector<TerminalInput> all;
  std::array<char, kMostTerminalInput> bytes;
  const auto read_some = [&](bool is_complete) {
    const ssize_t count = ::read(fd, bytes.data(), bytes.size());
    if (count < 0 || (count == 0 && !is_complete)) {
      return false;
    }
    all.push_back({{bytes.data(), static_cast<std::size_t>(count)}, is_complete});
    return true;
  };
  for (int i = 0; modes.edits_lines() && i < kMostReads && has_input(fd) && read_some(true); ++i) {
  }
  // What is left is a line that is not complete yet.
  MIGRATE_TRY(write_modes(fd, raw_modes(modes)));
  for (int i = 0; i < kMostReads && has_input(fd) && read_some(false); ++i) {
  }
  return all;
}

Result<void> put_input(int fd, const std::vector<TerminalInput>& input,
                       const TerminalModes& modes) {
  Result<void> done;
  for (const TerminalInput& piece : input) {
    const bool ends_itself = piece.bytes.ends_with('\n');
    const std::uint8_t end = piece.is_complete && !ends_itself ? absent_from(piece.bytes)
                                                               : std::uint8_t{_POSIX_VDISABLE};
    done = write_modes(fd, quiet_modes(modes, end));
    if (done) {
      done = type_input(fd, piece.bytes);
    }
    if (done && modes.edits_lines() && end != _POSIX_VDISABLE) {
      const char ending = static_cast<char>(end);
      done = type_input(fd, {&ending, 1});
    }
    if (!done) {
      break;
    }
  }
  MIGRATE_TRY(write_modes(fd, modes));
  return done;
}

Result<void> type_input(int fd, std::string_view bytes) {
  for (const char& byte : bytes) {
    if (::ioctl(fd, TIOCSTI, &byte) != 0) {
      return fail(terminal_error("give input back to", fd));
    }
  }
  return {};
}

bool can_type_input() {
  const auto own = make_pseudo_terminal("/dev/ptmx", 0);
  return own && type_input(own->slave.get(), "\n");
}

Result<PseudoTerminal> make_pseudo_terminal(const std::string& path, unsigned wanted) {
  PseudoTerminal made;
  std::vector<UniqueFd> others;  // With the lower numbers; free again when we are done.
  for (unsigned tries = 0; tries <= kMostTerminalNumber; ++tries) {
    UniqueFd master = MIGRATE_TRY(open_file(path, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC));
    unsigned number = 0;
    if (::ioctl(master.get(), TIOCGPTN, &number) != 0) {
      return fail(system_error("make a pseudo-terminal of", path));
    }
    if (!made.master.valid() || number == wanted) {
      std::swap(made.master, master);
    }
    if (number >= wanted || wanted > kMostTerminalNumber) {
      break;
    }
    if (master.valid()) {
      others.push_back(std::move(master));
    }
  }
  const int unlocked = 0;
  if (::ioctl(made.master.get(), TIOCSPTLCK, &unlocked) != 0) {
    return fail(system_error("unlock a pseudo-terminal of", path));
  }
  made.slave.reset(
      ::ioctl(made.master.get(), TIOCGPTPEER, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC));
  if (!made.slave.valid()) {
    return fail(system_error("open the slave of a pseudo-terminal of", path));
  }
  return made;
}

}  // namespace migrate
