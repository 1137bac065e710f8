#pragma once

#include <poll.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "libmigrate/relay/connection_end.h"
#include "libmigrate/relay/home_acceptor.h"
#include "libmigrate/relay/home_terminal.h"
#include "libmigrate/relay/link.h"
#include "libmigrate/relay/socket_end.h"
#include "libmigrate/relay/stream_buffer.h"

namespace migrate {

/// One stream at home: the real descriptor, shared with the deputy and perhaps with others, whose
/// O_NONBLOCK is therefore never touched. Pipes and terminals are opened a second time for our own
/// non-blocking use; sockets take flags per call; anything else is polled, then used in small
/// bites. Part of HomeRelay; the owner's thread only; nothing blocks.
class HomeStream {
 public:
  /// `terminal`, `connection`: what it is, if it is one.
  HomeStream(std::uint32_t id, std::uint32_t directions, UniqueFd real,
             const std::optional<HomeTerminal::Found>& terminal,
             const std::optional<ConnectionEnd::Start>& connection = std::nullopt);

  std::uint32_t id() const { return id_; }

  /// Of a Unix domain socket: an end of the journal that another worker's stream had. Call before
  /// adopt().
  void set_found_journal(UniqueFd end) { found_journal_ = std::move(end); }
  /// Of one that has none yet, without which nothing is written: to be given by begin_journal().
  bool needs_journal() const;
  /// False if there is to be none: what a worker writes just when it dies is written again then.
  bool begin_journal(Result<AcceptedSocket> made);
  /// What the deputy has it as; 0: none.
  std::uint32_t journal_descriptor() const { return journal_descriptor_; }
  /// The same, once, when it is not needed any more.
  std::uint32_t take_closed_journal() { return open() ? 0 : std::exchange(journal_descriptor_, 0); }

  /// Goes on where another worker's stream ended, as its note() says.
  void adopt(const wire::HomeRelayState::Stream& noted);
  void note(wire::HomeRelayState::Stream& noted) const;

  /// Adds the real descriptor to `descriptors` if it matters now. `may_read`: input may be taken.
  void collect(std::vector<pollfd>& descriptors, bool may_read) const;
  /// A terminal, which others may be reading just now.
  bool is_terminal() const { return terminal_.has_value() && fd_.valid(); }
  bool is_controlling_terminal() const { return is_terminal() && terminal_->is_controlling(); }
  bool has_taken_terminal() const { return is_terminal() && terminal_->is_taken(); }
  std::uint64_t terminal_device() const { return device_; }
  /// Takes the terminal, or leaves it: see HomeTerminal.
  void follow_terminal(bool in_foreground, bool may_take);
  /// The process goes on that had left it.
  void take_terminal_again();

  /// Reads and writes the real descriptor as far as `events` (what poll said of it) allow.
  void pump_real(short events, bool may_read);
  /// What was read has been noted.
  void take();
  /// Queues on `link` what is due.
  void pump_link(Link& link);

  Result<void> accept_data(const wire::RelayData& data);
  Result<void> accept_ack(const wire::RelayAck& ack);
  Result<void> accept_close(const wire::RelayClose& close);
  /// Whether accept_resume would be right; changes nothing.
  Result<void> check_resume(const wire::RelayResume::Stream& resume) const;
  void accept_resume(const wire::RelayResume::Stream& resume);
  void describe(wire::RelayResumed::Stream& resumed);

  /// The output up to `offset` was written, or can never be.
  bool written_to(std::uint64_t offset) const {
    return !has_out() || out_gone_ || out_.first() >= offset;
  }
  /// The deputy is to close its descriptors, too. A socket has the same for both directions.
  bool in_closed() const { return in_gone_ && (!is_two_way() || !open()); }
  bool out_closed() const { return out_closed_ && (!is_two_way() || !open()); }
  bool open() const { return fd_.valid(); }
  /// The process has ended, and with it what it has not read; then as close(). `was_lost`: not by
  /// itself, so that its peers must not take it for the end of what it had to say.
  void end(bool was_lost);
  /// Lets the real descriptor go.
  void close();

 private:
  bool has_in() const { return (directions_ & wire::RELAY_IN) != 0; }
  bool has_out() const { return (directions_ & wire::RELAY_OUT) != 0; }
  bool is_two_way() const { return connection_ || socket_; }
  bool reads_in() const { return has_in() && !in_gone_ && !in_eof_ && fd_.valid(); }
  bool has_room() const { return in_.size() < most_input(); }
  std::uint64_t most_input() const;
  void reopen();
  void write_terminal();
  void read_in();
  void write_out();
  void set_nonblocking();
  void adopt_socket(const wire::HomeRelayState::Stream& noted);
  void adopt_connection(const wire::HomeRelayState::Stream& noted);
  void leave_connection();
  void drop_in();
  void drop_in_to(std::uint64_t offset);
  void drop_out();
  void finish_out();
  void close_if_done();
  void let_go();
  Error corrupt(const char* what) const;

  const std::uint32_t id_;
  const std::uint32_t directions_;
  UniqueFd fd_;
  bool nonblocking_ = false;  // reads and writes of fd_ never block
  std::optional<HomeTerminal> terminal_;
  std::optional<ConnectionEnd> connection_;
  std::optional<SocketEnd> socket_;  // of a Unix domain socket
  UniqueFd found_journal_;
  std::uint32_t journal_descriptor_ = 0;
  std::uint64_t journal_inode_ = 0;
  bool does_without_journal_ = false;
  std::string local_;  // its names, as SocketName has them
  std::string peer_;
  bool out_reset_ = false;  // of a connection: the process's output ends with a reset
  bool leaves_ = false;     // and the process has closed it
  std::uint64_t device_ = 0;

  StreamBuffer in_;  // from the first byte that the process has not read
  std::uint64_t in_sent_ = 0;
  bool in_eof_ = false;
  bool in_eof_sent_ = false;
  bool in_gone_ = false;

  StreamBuffer out_;  // arrived, not yet written
  std::uint64_t out_acked_ = 0;
  bool out_eof_ = false;     // the process's end of file is at out_.end()
  bool out_closed_ = false;  // and everything before it was written
  bool out_closed_sent_ = false;
  bool out_gone_ = false;
  bool out_gone_sent_ = false;
};

}  // namespace migrate
