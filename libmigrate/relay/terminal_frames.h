#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace migrate {

/// What the bytes of a relayed terminal mean, in their order: runs of plain bytes, and frames.
/// 0xFF begins a frame: a kind, the length of its content (two bytes, the lower first), the
/// content.
enum class TerminalFrame : std::uint8_t {
  kPlain = 0,         ///< No frame, or one of the plain byte 0xFF.
  kLine = 'l',        ///< Input that a line discipline has made: a complete piece (TerminalInput).
  kPart = 'p',        ///< The same, not complete.
  kSettings = 'm',    ///< TerminalModes.
  kSize = 's',        ///< TerminalSize.
  kForeground = 'f',  ///< To the process: one byte, whether its group gets the input.
  kReturned = 'r',    ///< To home: the lines and parts before it go back to the terminal, and so
                      ///< does all that home has sent from this offset (eight bytes) on.
  kGoOn = 'g',        ///< To the process: it has heard so; from here on input counts again.
};

/// One of them.
struct TerminalUnit {
  TerminalFrame kind = TerminalFrame::kPlain;
  std::string_view content;  ///< Borrowed.
  std::size_t bytes = 0;     ///< That it takes.
};

/// The longest content of a frame: a full line discipline.
inline constexpr std::size_t kMostTerminalFrame = 4096;

/// The first unit of `bytes`, or nothing while it is not all there. Errors: kCorrupt (an unknown
/// kind, or a length that the kind cannot have).
Result<std::optional<TerminalUnit>> first_unit(std::string_view bytes);

/// How many of the first `most` bytes of `bytes`, which begin with a unit, end with one; each byte
/// of a run of plain bytes is one.
std::size_t whole_units(std::string_view bytes, std::size_t most);

/// Adds plain bytes, whatever they are.
void add_plain(std::string& bytes, std::string_view plain);
/// Adds a frame; `content` is no longer than kMostTerminalFrame.
void add_frame(std::string& bytes, TerminalFrame kind, std::string_view content);

}  // namespace migrate
