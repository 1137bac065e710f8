#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "base/result.h"
#include "libmigrate/links/tcp_pair.h"
#include "libmigrate/proto/home.pb.h"
#include "libmigrate/relay/connection_end.h"

namespace migrate {

/// A stream that is a connection of TCP, at the guest's side: the mate of the socket that the
/// process has, which is the stream's and passed to each call, and what the kernel tells of the
/// process's. We never have that one: the process alone closes it. Part of GuestStream; the owner's
/// thread only; nothing blocks.
class GuestConnection {
 public:
  explicit GuestConnection(const wire::RelayConnectionState& state);

  /// For the next place.
  wire::RelayConnectionState state() const;
  void note(wire::GuestRelayState::Stream& noted) const;

  /// One that home has accepted, and not the process when it left home. It comes to the listener of
  /// the process by calling that, in steps: make_call() gives the mate, which call() connects; then
  /// open().
  bool is_accepted() const { return accepted_.has_value(); }
  std::uint32_t listener() const { return accepted_ ? accepted_->listener() : 0; }
  Result<UniqueFd> make_call(int anchor) const;
  /// Errors: kSystem (it has failed).
  Result<void> call(int mate) const;
  /// Whether the process has accepted it, which look_whether_taken() finds out.
  bool is_taken() const { return is_taken_; }
  void look_whether_taken();
  /// The process has called, here: its kernel counts that as a byte.
  void note_called() { counts_call_ = true; }
  /// It has not been answered yet, as far as can be told.
  bool is_unanswered() const;
  /// Of the process's end, once that has been seen; else 0.
  std::uint64_t inode() const { return inode_; }

  /// `mate` is new; the first byte that is read of it is that at `read_at` of the stream, the first
  /// that is written that at `written_at`. Errors: kSystem.
  Result<void> open(int mate, std::shared_ptr<TcpWatch> watch, std::uint64_t read_at,
                    std::uint64_t written_at);
  bool is_open() const { return end_.has_value(); }
  /// Goes on where a worker ended that had noted `place`. Gives the offset of the first byte that
  /// is not written yet; `written`, as it was noted, if that cannot be told.
  std::uint64_t adopt(const wire::GuestRelayState::Stream& noted, int mate,
                      const StreamBuffer& read, std::uint64_t written);

  ConnectionEnd::Read read(int mate, StreamBuffer& into, std::uint64_t most);
  void take(int mate);
  ConnectionEnd::Written write(int mate, StreamBuffer& from);
  void write_urgently(std::uint64_t offset);
  std::optional<std::uint64_t> urgent() const;

  /// The offset of the first byte that the process has not read; at least `known`, at most
  /// `written`, which is given also if its connection is over.
  std::uint64_t consumed(std::uint64_t known, std::uint64_t written) const;
  /// consumed() has given this. (Who reads fast is looked at often.)
  void note_consumed(std::uint64_t offset);
  int look_interval_ms() const { return look_interval_ms_; }
  /// The process has written more than what was read up to `read_to`.
  bool has_more(std::uint64_t read_to) const;
  /// Looks whether the process has closed its end, whose output has ended. (It may only have ended
  /// that.) Also if the connection is over, which comes to the same.
  bool has_left();
  bool is_known_left() const { return has_left_; }
  void note_left() { has_left_ = true; }
  /// Whether has_left() is to be asked in a while. It is for some time after the output has ended:
  /// the kernel says so shortly before the end is closed.
  bool wants_look(bool output_ended) const;

  /// The output ends with a reset.
  bool is_reset() const;
  void give_up() { was_reset_ = true; }
  /// The input does.
  void end_with_reset() { ends_with_reset_ = true; }
  bool ends_with_reset() const { return ends_with_reset_; }

 private:
  Result<std::optional<TcpWatch::Seen>> look() const;

  std::optional<wire::RelayAccepted> accepted_;
  bool is_taken_ = false;
  std::uint64_t inode_ = 0;
  std::optional<ConnectionEnd> end_;  // once there is a mate
  std::shared_ptr<TcpWatch> watch_;
  SocketName local_;  // of the process
  SocketName peer_;
  std::uint64_t process_from_ =
      0;  // the offset of a byte of input that the process's kernel counts
  bool counts_call_ = false;
  bool was_reset_ = false;  // where it was before
  bool has_left_ = false;
  int late_looks_ = 0;
  int look_interval_ms_ = 1;
  std::uint64_t consumed_ = 0;
  bool ends_with_reset_ = false;
  std::optional<std::uint64_t> urgent_;  // as an earlier place has read it
};

}  // namespace migrate
