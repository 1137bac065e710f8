#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "base/result.h"
#include "base/unique_fd.h"
#include "libmigrate/proc/terminal.h"
#include "libmigrate/proto/home.pb.h"
#include "libmigrate/relay/stream_buffer.h"
#include "libmigrate/relay/terminal_frames.h"

namespace migrate {

/// What a terminal of a process is made of where the process arrives.
struct TerminalParts {
  std::uint32_t stream = 0;
  PseudoTerminal pair;
  TerminalModes modes;
  TerminalSize size;
  std::uint32_t permissions = 0;  ///< Of its node; of these, whether its group may write counts.
};

/// A pseudo-terminal that a process has in place of its terminal at home, of which we hold both
/// sides: the master, which speaks with home in the frames of terminal_frames.h, and the slave, by
/// which it stays the terminal of its session whatever the process closes. Part of GuestStream; the
/// owner's thread only; nothing blocks.
class GuestTerminal {
 public:
  explicit GuestTerminal(const wire::RelayTerminalState& state)
      : unread_(state.unread()), discards_(state.discards()) {}

  /// Makes the pair the terminal. Its slave becomes `owner`'s. Errors: kSystem.
  Result<void> open(TerminalParts parts, uid_t owner, gid_t group);
  void adopt(UniqueFd master, UniqueFd slave);
  wire::RelayTerminalState state() const;

  int master() const { return master_.get(); }
  int slave() const { return slave_.get(); }
  bool is_open() const { return master_.valid(); }

  /// Takes from the front of `in` what there is room for. Errors: kCorrupt.
  Result<void> take(StreamBuffer& in);
  /// Adds to `out` what the process has written and how it has set the terminal, as long as that
  /// holds less than `limit` bytes. False: nobody can write any more.
  bool read_out(StreamBuffer& out, std::uint64_t limit);
  /// Whether the process's group is to get the input from now on, if home has said so.
  std::optional<bool> take_foreground() { return std::exchange(foreground_, std::nullopt); }

  /// The process has stopped or ended: what was typed and not read goes back to home, in `out`.
  void give_back(const StreamBuffer& in, StreamBuffer& out);
  /// Takes out what the process has not read, for state(). If it stays here, the next take() puts
  /// that back.
  void take_unread();
  /// Only children of the process may use it from now on: if they close it, that is its end.
  void let_go() { slave_.reset(); }
  /// Home's terminal is gone.
  void hang_up();

 private:
  void put_back();
  Result<void> apply(const TerminalUnit& unit);
  void put(const TerminalInput& input);
  std::size_t room() const;
  void tell_settings(StreamBuffer& out);

  UniqueFd master_;
  UniqueFd slave_;
  std::string unread_;  // frames
  bool discards_;
  std::optional<bool> foreground_;
  std::optional<TerminalModes> told_modes_;  // as home knows them
  std::optional<TerminalSize> told_size_;
};

}  // namespace migrate
