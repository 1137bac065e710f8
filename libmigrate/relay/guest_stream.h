#pragma once

#include <poll.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "libmigrate/links/unix_pair.h"
#include "libmigrate/relay/guest_connection.h"
#include "libmigrate/relay/guest_terminal.h"
#include "libmigrate/relay/link.h"
#include "libmigrate/relay/socket_end.h"
#include "libmigrate/relay/stream_buffer.h"

namespace migrate {

/// The process's end of one stream, to be installed in the process.
struct StreamEndpoint {
  std::uint32_t id = 0;
  UniqueFd process_end;  ///< Blocking; the caller sets O_NONBLOCK and kin as the image says.
  /// By which a later capture recognises the stream: its inode, of a terminal its st_rdev.
  std::uint64_t inode = 0;
  bool is_terminal = false;
};

/// One of our ends of a stream that must outlive the worker: while it is open, the process sees
/// neither end of file nor a broken pipe.
struct RelayEnd {
  enum class Kind : std::uint8_t {
    kIn,
    kOut,
    kUnread,
    kGateway,  ///< Of none of the streams.
  };
  std::uint32_t id = 0;
  Kind kind = Kind::kIn;
  int fd = -1;  ///< Borrowed.
};

/// One stream at the guest's side: a pipe, socket pair or pseudo-terminal whose other end the
/// process holds. Part of GuestRelay; the owner's thread only; nothing blocks.
class GuestStream {
 public:
  explicit GuestStream(const wire::RelayStreamState& state);

  std::uint32_t id() const { return id_; }

  /// Goes on where another worker's stream ended; the descriptors are its ends, where it had them.
  void adopt(const wire::GuestRelayState::Stream& noted, UniqueFd in, UniqueFd out,
             UniqueFd unread);
  /// For adopt().
  void note(wire::RelayStreamState& state, wire::GuestRelayState::Stream& noted) const;
  void add_ends(std::vector<RelayEnd>& ends) const;

  /// Makes the pipe or socket pair. Once. Errors: kSystem.
  Result<StreamEndpoint> open(uid_t owner, gid_t group);
  /// The same of a connection of Unix domain sockets. `pair`: its end is the process's.
  Result<StreamEndpoint> open_pair(UnixPair pair);
  /// The same of a stream that is_terminal().
  Result<StreamEndpoint> open_terminal(TerminalParts parts, uid_t owner, gid_t group);
  bool is_terminal() const { return terminal_.has_value(); }
  /// The same of a stream that is_connection(). `pair`: its end is the process's.
  Result<StreamEndpoint> open_connection(TcpPair pair);
  /// Instead of both, if the process has closed it before it came here.
  void leave();
  bool is_connection() const { return connection_.has_value(); }
  /// One of those that home has accepted: see GuestConnection.
  bool is_accepted() const { return connection_ && connection_->is_accepted(); }
  std::uint32_t listener() const { return connection_->listener(); }
  /// Instead of open_connection(), as long as the process has not accepted it.
  void begin_call(int anchor);
  /// The same: it cannot be brought to the process.
  void give_up_call();
  /// The same: the process has made it, by a call, and `mate` is connected to it, or about to be.
  void open_called(std::optional<UniqueFd> mate, const std::shared_ptr<TcpWatch>& watch);
  /// The worker that was to answer it has died: the process calls again.
  void take_back_unanswered();
  /// What was made has been noted: connects.
  void go_on_calling();
  /// The other end of what calls is the process's by now, whose namespace `watch` looks at.
  void end_calling(const std::shared_ptr<TcpWatch>& watch);
  bool is_calling() const { return in_fd_.valid() && connection_ && !connection_->is_open(); }
  /// begin_call() is due.
  bool is_uncalled() const {
    return is_accepted() && !is_taken() && !in_fd_.valid() && !connection_->is_open() && !out_eof_;
  }
  bool is_taken() const { return connection_ && connection_->is_taken(); }
  std::uint64_t inode() const { return connection_ ? connection_->inode() : 0; }
  /// Looks whether the process has accepted it.
  void look_whether_taken();
  /// Nothing is left to be said of it by either side.
  bool is_over() const;

  void collect(std::vector<pollfd>& descriptors) const;
  /// In how many milliseconds to look at what the process has read, of which no event tells; -1:
  /// need not be.
  int looks_in_ms() const;
  /// Moves bytes between the buffers and the process's ends, and notices ends closed. Errors:
  /// kCorrupt (what home has sent for a terminal).
  Result<void> pump_process();
  /// Whether the process's group is to get the terminal's input from now on, if home has said so.
  std::optional<bool> take_foreground();
  /// Queues on `link` what is due.
  void pump_link(Link& link);
  /// Takes everything out of the process's output, over the window if need be; of a connection, a
  /// part of it.
  void drain();
  /// What is read must be noted, and take() called, before more can be.
  bool copies_first() const { return connection_ || socket_; }
  /// Whether drain() is to be called again, after take(), when poll_fd() can be read.
  bool has_more() const;
  int poll_fd() const { return in_fd_.get(); }
  /// What was read has been noted.
  void take();
  /// The rest of the output of a connection will not come.
  void give_up_output();
  /// The same of a terminal's input that the process has not read, until it is pumped again.
  void take_unread();
  /// The process has stopped: its terminal is the shell's again, with what was typed and not read.
  void yield_terminal();
  /// The process has ended, but children of it have not.
  void leave_to_children();
  /// No output will come any more: the process has ended.
  void end_output();

  Result<void> accept_data(const wire::RelayData& data);
  Result<void> accept_ack(const wire::RelayAck& ack);
  Result<void> accept_close(const wire::RelayClose& close);
  Result<void> accept_resumed(const wire::RelayResumed::Stream& resumed);

  void describe(wire::RelayResume::Stream& resume);
  void save(wire::RelayStreamState& state) const;
  std::uint64_t out_end() const { return out_.end(); }
  /// The output up to `offset`, and its end if that was reached, was queued on the present link.
  bool sent_to(std::uint64_t offset) const {
    return !writes_out() || (out_sent_ >= offset && (!out_eof_ || out_eof_sent_));
  }
  /// Nothing of the output remains to be sent or acknowledged.
  bool flushed() const;

 private:
  bool reads_in() const { return (directions_ & wire::RELAY_IN) != 0 && !in_gone_; }
  bool writes_out() const { return (directions_ & wire::RELAY_OUT) != 0 && !out_gone_; }
  bool wants_look() const;
  bool wants_timer() const;
  void pump_connection();
  void pump_socket();
  bool looks_for_hang_up() const;
  std::uint64_t consumed_of_socket() const;
  void finish_connection();
  void send_close(Link& link);
  void send_taken(Link& link);
  void acknowledge(Link& link, std::uint64_t read_to);
  std::uint64_t consumed() const;
  Result<void> pump_terminal();
  void write_in();
  void finish_in();
  void drop_reader();
  void read_out(std::uint64_t limit);
  void drop_out();
  Error corrupt(const char* what) const;

  const std::uint32_t id_;
  const std::uint32_t directions_;

  // Our ends. A stream of both directions has one socket, kept in in_fd_ and used for both.
  UniqueFd in_fd_;      // what we write, the process reads
  UniqueFd out_fd_;     // what the process writes, we read
  UniqueFd unread_fd_;  // tells (FIONREAD) what the process has not read yet; else in_fd_ does
  std::optional<GuestTerminal> terminal_;  // has all of them, if it is one
  std::optional<GuestConnection> connection_;
  std::optional<SocketEnd> socket_;  // the same of a Unix domain socket
  std::uint64_t inode_ = 0;          // of the process's end of that

  StreamBuffer in_;             // arrived, not yet written to in_fd_
  std::uint64_t in_acked_ = 0;  // last acknowledgement that home knows or will know
  bool in_eof_ = false;         // home's end of file is at in_.end()
  bool in_finished_ = false;    // the process sees the end of file
  bool in_gone_ = false;
  bool in_gone_sent_ = false;

  StreamBuffer out_;  // from the first byte that home has not acknowledged
  std::uint64_t out_sent_ = 0;
  bool out_eof_ = false;
  bool out_eof_sent_ = false;
  bool out_eof_acked_ = false;
  bool left_sent_ = false;
  bool taken_sent_ = false;
  // A call has come to its end: nothing is written before it has been noted where that begins.
  enum class Beginning : std::uint8_t { kOver, kUnnoted, kNoted };
  Beginning beginning_ = Beginning::kOver;
  std::optional<std::uint64_t>
      left_at_;  // The process has closed its connection, having read so far.
  bool out_gone_ = false;
};

}  // namespace migrate
