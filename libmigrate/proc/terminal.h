#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"

namespace migrate {

/// Modes of a terminal, with exact speeds: the kernel's struct termios2, which <asm/termbits.h>
/// has, and which no file can include beside <termios.h>.
struct TerminalModes {
  std::uint32_t input = 0;
  std::uint32_t output = 0;
  std::uint32_t control = 0;
  std::uint32_t local = 0;
  std::uint8_t line = 0;
  std::array<std::uint8_t, 19> characters{};
  std::uint32_t input_speed = 0;
  std::uint32_t output_speed = 0;

  friend bool operator==(const TerminalModes&, const TerminalModes&) = default;
  /// As messages have it.
  std::string to_bytes() const;
  /// Errors: kCorrupt (another size).
  static Result<TerminalModes> from_bytes(std::string_view bytes);
  /// Whether a reader gets lines, which can be edited until they end.
  bool edits_lines() const;
  /// Whether what is written is changed on its way, line ends among others.
  bool changes_output() const;
};
static_assert(sizeof(TerminalModes) == 44);

struct TerminalSize {
  std::uint16_t rows = 0;
  std::uint16_t columns = 0;
  std::uint16_t width_pixels = 0;
  std::uint16_t height_pixels = 0;
  friend bool operator==(const TerminalSize&, const TerminalSize&) = default;
};

/// A piece of what waits in a terminal to be read.
struct TerminalInput {
  std::string bytes;
  bool is_complete = false;  ///< One read(2) gives it, even if it is empty (end of file).
  friend bool operator==(const TerminalInput&, const TerminalInput&) = default;
};

/// Most bytes that a terminal's line discipline keeps for a reader.
inline constexpr std::size_t kMostTerminalInput = 4096;

// `fd`: a descriptor of the terminal; where it is said, the master of a pseudo-terminal will do.
// Nothing of this blocks. Errors: kSystem.

Result<TerminalModes> read_modes(int fd);  ///< Or its master.
/// Or its master. What waits to be read or sent stays.
Result<void> write_modes(int fd, const TerminalModes& modes);
Result<TerminalSize> read_size(int fd);  ///< Or its master.
/// Or its master. The kernel tells the foreground group of a change.
Result<void> write_size(int fd, const TerminalSize& size);
/// Which terminal it is, also where the descriptor is one of /dev/tty: st_rdev.
Result<std::uint64_t> terminal_device(int fd);
/// What keeps it from being taken for a plain terminal: "it is a serial line". Empty: nothing does.
std::string peculiarity_of_terminal(int fd);

/// Modes in which every byte comes and goes as it is.
TerminalModes raw_modes(const TerminalModes& modes);
/// Takes all that waits to be read, and leaves the terminal in raw_modes().
Result<std::vector<TerminalInput>> take_input(int fd, const TerminalModes& modes);
/// Lets the next reader find `input`, behind what waits already, and leaves the terminal in
/// `modes`. Nothing is echoed or interpreted. Needs CAP_SYS_ADMIN, or that the terminal is the
/// caller's own and programs may do so.
Result<void> put_input(int fd, const std::vector<TerminalInput>& input, const TerminalModes& modes);
/// As if `bytes` were typed now. Needs the same.
Result<void> type_input(int fd, std::string_view bytes);
/// Whether the caller may do so with any terminal, as tried out with one of his own.
bool can_type_input();

/// A pseudo-terminal, whose master does not block.
struct PseudoTerminal {
  UniqueFd master;
  UniqueFd slave;
};
/// The highest number that make_pseudo_terminal() tries to get.
inline constexpr unsigned kMostTerminalNumber = 255;
/// Makes one of the multiplexer at `path` (/dev/pts/ptmx), as number `wanted` if that is free and
/// no more than kMostTerminalNumber.
Result<PseudoTerminal> make_pseudo_terminal(const std::string& path, unsigned wanted);

}  // namespace migrate
