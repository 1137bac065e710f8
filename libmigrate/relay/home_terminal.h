#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "libmigrate/proc/terminal.h"
#include "libmigrate/proto/home.pb.h"
#include "libmigrate/relay/stream_buffer.h"
#include "libmigrate/relay/terminal_frames.h"

namespace migrate {

/// The terminal at home of a process that is away, which has a pseudo-terminal in its place. While
/// the process may read it, it is in raw modes, since the line discipline of that other one is to
/// do all the work; at any other time it has the modes that the process would have left it in.
/// Part of HomeStream; the owner's thread only; nothing blocks. `fd`: the terminal.
class HomeTerminal {
 public:
  /// As it was when the process left.
  struct Found {
    TerminalModes modes;
    bool is_controlling = false;  ///< It is the terminal of the process's session.
    bool has_input = false;       ///< What is typed there may be meant for the process.
  };
  explicit HomeTerminal(const Found& found)
      : is_controlling_(found.is_controlling),
        has_input_(found.has_input),
        found_modes_(found.modes),
        modes_(found.modes) {}

  void adopt(const wire::HomeTerminalState& noted);
  wire::HomeTerminalState note() const;

  /// Takes it, or leaves it, and adds to `in` what the process's place has to know of it.
  /// `in_foreground`: the process's group is to get the input; `may_take`: there is a way for it.
  /// When the way is lost the terminal is kept for a second, in which what is typed waits there:
  /// the process mostly moves on, and what is given back and taken again may change its order.
  void follow(int fd, bool in_foreground, bool may_take, StreamBuffer& in);
  /// It is in raw modes: what is typed is the process's.
  bool is_taken() const { return raw_modes_.has_value(); }
  bool is_controlling() const { return is_controlling_; }
  /// Sets the modes that the process would have left, unless someone else has set other ones.
  void leave(int fd);
  /// The process goes on: what was left to a shell may be taken again.
  void go_on();

  /// Adds what was read from it.
  void add_typed(std::string_view bytes, StreamBuffer& in);
  /// Carries out a frame of the process's place. Errors: kCorrupt.
  Result<void> apply(int fd, const TerminalUnit& frame, StreamBuffer& in);
  /// How much of `plain` to write at once, and how much to leave out before that: a line end that
  /// the terminal itself makes, as it is not in raw modes.
  struct Bite {
    std::size_t skipped = 0;
    std::size_t written = 0;
  };
  Bite next_bite(int fd, std::string_view plain) const;

 private:
  void take(int fd, const TerminalModes& modes, StreamBuffer& in);
  bool waits_for_a_way();
  std::string set_modes_back(int fd);
  void keep_typed(std::string_view bytes);
  void keep_typed(const TerminalInput& piece);
  Result<void> give_back(int fd, std::uint64_t offset, StreamBuffer& in);

  const bool is_controlling_;
  const bool has_input_;
  const TerminalModes found_modes_;         // as nobody abroad has set them
  TerminalModes modes_;                     // as the process has set them
  std::optional<TerminalModes> raw_modes_;  // what we have set instead
  std::optional<TerminalSize> told_size_;
  std::optional<bool> told_foreground_;
  std::optional<std::chrono::steady_clock::time_point> way_lost_at_;
  bool rests_ = false;  // the process has stopped or ended
  std::string typed_;   // the last input that was taken
  std::vector<TerminalInput> returned_;
  std::size_t returned_bytes_ = 0;
};

/// Those of the last of `returned` that `typed` ends with, as a line discipline with `modes` makes
/// lines of what is typed: a place gives nothing back that was not typed here, ends of file
/// included. So `modes` must not be the place's to choose, but for whether there are lines.
std::vector<TerminalInput> typed_before(const std::vector<TerminalInput>& returned,
                                        std::string_view typed, const TerminalModes& modes);

}  // namespace migrate
