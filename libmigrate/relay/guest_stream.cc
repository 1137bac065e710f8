#include "libmigrate/relay/guest_stream.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <string>

#include "base/owner_scope.h"
#include "libmigrate/links/tcp_listener.h"

namespace migrate {
namespace {

/// Small, so that little of home's input is taken ahead; more than a slot, so that the process and
/// the relay need not take turns for every page.
constexpr int kInPipeBytes = 16 << 10;

Result<void> set_nonblocking(int fd) {
  if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) != 0) {
    return fail(system_error("set O_NONBLOCK", "descriptor " + std::to_string(fd)));
  }
  return {};
}

Result<std::uint64_t> inode_of(int fd, std::uint32_t stream) {
  struct stat status {};
  if (fstat(fd, &status) != 0) {
    return fail(system_error("fstat", "relay stream " + std::to_string(stream)));
  }
  return status.st_ino;
}

}  // namespace

GuestStream::GuestStream(const wire::RelayStreamState& state)
    : id_(state.id()),
      directions_(state.directions()),
      in_(state.in_next()),
      in_acked_(state.in_next()),
      in_gone_(state.in_gone()),
      out_(state.out_first()),
      out_sent_(state.out_first()),
      out_eof_(state.out_eof()),
      out_gone_(state.out_gone()) {
  if (!out_gone_) {
    out_.append(state.out_unacked());
  }
  if (state.has_terminal()) {
    terminal_.emplace(state.terminal());
  }
  if (state.has_connection()) {
    connection_.emplace(state.connection());
    if (state.connection().left()) {
      left_at_ = state.in_next();
    }
  }
}

Error GuestStream::corrupt(const char* what) const {
  return make_error(ErrorCode::kCorrupt, what, "relay stream " + std::to_string(id_));
}

void GuestStream::adopt(const wire::GuestRelayState::Stream& noted, UniqueFd in, UniqueFd out,
                        UniqueFd unread) {
  in_acked_ = std::min(noted.in_acked(), in_.first());
  in_eof_ = noted.in_eof();
  in_finished_ = noted.in_finished();
  if (terminal_) {
    terminal_->adopt(std::move(in), std::move(unread));
    return;
  }
  if (connection_ && in.valid()) {
    in_ = StreamBuffer(connection_->adopt(noted, in.get(), out_, in_.first()));
  }
  if (noted.has_socket() && in.valid()) {
    inode_ = noted.inode();
    socket_.emplace();
    in_ = StreamBuffer(socket_->adopt(noted.socket(), in.get(), std::move(unread), in_.first()));
    in_fd_ = std::move(in);
    return;
  }
  in_fd_ = std::move(in);
  out_fd_ = std::move(out);
  unread_fd_ = std::move(unread);
}

void GuestStream::note(wire::RelayStreamState& state, wire::GuestRelayState::Stream& noted) const {
  save(state);
  state.set_in_next(left_at_.value_or(in_.first()));
  noted.set_id(id_);
  noted.set_in_acked(in_acked_);
  noted.set_in_eof(in_eof_ && in_.empty());
  noted.set_in_finished(in_finished_);
  if (connection_) {
    noted.set_in_eof(in_finished_);  // Otherwise home tells it again, and how it ends.
    connection_->note(noted);
  }
  if (socket_) {
    noted.set_inode(inode_);
    socket_->note(*noted.mutable_socket());
  }
}

void GuestStream::add_ends(std::vector<RelayEnd>& ends) const {
  const auto add = [&](RelayEnd::Kind kind, int fd) {
    if (fd >= 0) {
      ends.push_back({id_, kind, fd});
    }
  };
  add(RelayEnd::Kind::kIn, terminal_ ? terminal_->master() : in_fd_.get());
  add(RelayEnd::Kind::kOut, out_fd_.get());
  add(RelayEnd::Kind::kUnread, terminal_ ? terminal_->slave()
                               : socket_ ? socket_->journal()
                                         : unread_fd_.get());
}

Result<StreamEndpoint> GuestStream::open(uid_t owner, gid_t group) {
  std::array<int, 2> ends{};
  if (directions_ == wire::RELAY_BOTH) {
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) {
      return fail(system_error("socketpair", "relay stream " + std::to_string(id_)));
    }
    return open_pair({UniqueFd(ends[0]), UniqueFd(ends[1])});
  }
  StreamEndpoint endpoint;
  endpoint.id = id_;
  const OwnerScope as_owner(owner, group);
  if (pipe2(ends.data(), O_CLOEXEC) != 0) {
    return fail(system_error("pipe2", "relay stream " + std::to_string(id_)));
  }
  const bool in = (directions_ & wire::RELAY_IN) != 0;
  UniqueFd ours(ends[in ? 1 : 0]);
  endpoint.process_end.reset(ends[in ? 0 : 1]);
  MIGRATE_TRY(set_nonblocking(ours.get()));
  if (in) {
    fcntl(ours.get(), F_SETPIPE_SZ, kInPipeBytes);  // Best effort.
  }
  if (in ? !in_gone_ : !out_gone_) {
    (in ? in_fd_ : out_fd_) = std::move(ours);
  }
  endpoint.inode = MIGRATE_TRY(inode_of(endpoint.process_end.get(), id_));
  return endpoint;
}

Result<StreamEndpoint> GuestStream::open_terminal(TerminalParts parts, uid_t owner, gid_t group) {
  StreamEndpoint endpoint;
  endpoint.id = id_;
  endpoint.is_terminal = true;
  endpoint.process_end = MIGRATE_TRY(parts.pair.slave.duplicate());
  endpoint.inode = MIGRATE_TRY(terminal_device(parts.pair.slave.get()));
  MIGRATE_TRY(terminal_->open(std::move(parts), owner, group));
  if (in_gone_ || out_gone_) {
    terminal_->hang_up();
  }
  return endpoint;
}

std::optional<bool> GuestStream::take_foreground() {
  return terminal_ ? terminal_->take_foreground() : std::nullopt;
}

void GuestStream::collect(std::vector<pollfd>& descriptors) const {
  if (terminal_) {
    if (terminal_->is_open() && !out_eof_ && out_.size() < kRelayWindowBytes) {
      descriptors.push_back({terminal_->master(), POLLIN, 0});
    }
    return;
  }
  if (is_calling()) {
    if (call_state(in_fd_.get()) != CallState::kIdle) {
      descriptors.push_back({in_fd_.get(), POLLOUT, 0});
    }
    return;
  }
  if (connection_) {
    const bool room = writes_out() && !out_eof_ && out_.size() < kRelayWindowBytes;
    const short events =
        static_cast<short>((room ? POLLIN : 0) | (reads_in() && !in_.empty() ? POLLOUT : 0));
    if (in_fd_.valid() && events != 0) {
      descriptors.push_back({in_fd_.get(), events, 0});
    }
    return;
  }
  const bool room = writes_out() && !out_eof_ && out_.size() < kRelayWindowBytes;
  if (socket_) {
    const short events =
        static_cast<short>((room ? POLLIN : 0) | (reads_in() && !in_.empty() ? POLLOUT : 0));
    if (in_fd_.valid() && (events != 0 || looks_for_hang_up())) {
      descriptors.push_back({in_fd_.get(), events, 0});
    }
    return;
  }
  // Not polled otherwise, as a hang-up would wake us again and again.
  if (in_fd_.valid() && reads_in() && !in_finished_) {
    descriptors.push_back({in_fd_.get(), static_cast<short>(in_.empty() ? 0 : POLLOUT), 0});
  }
  if (out_fd_.valid() && room) {
    descriptors.push_back({out_fd_.get(), POLLIN, 0});
  }
}

int GuestStream::looks_in_ms() const {
  constexpr int kLookIntervalMs = 10;
  constexpr int kTakenIntervalMs = 50;
  if (beginning_ != Beginning::kOver) {
    return 0;
  }
  if (!wants_timer()) {
    return -1;
  }
  if (connection_ && !connection_->is_taken()) {
    return kTakenIntervalMs;
  }
  return connection_ ? connection_->look_interval_ms() : kLookIntervalMs;
}

bool GuestStream::wants_timer() const {
  if (terminal_) {
    return terminal_->is_open() && !in_.empty();  // For room in it.
  }
  if (connection_) {
    return wants_look();
  }
  if (!reads_in() || !in_.empty() || in_finished_) {
    return false;
  }
  return in_eof_ || in_.end() - in_acked_ >= kRelayWindowBytes / 2;
}

std::uint64_t GuestStream::consumed() const {
  if (terminal_) {
    return in_.first();  // What it has taken travels with the process.
  }
  if (connection_) {
    return in_gone_ || !in_fd_.valid() ? in_.first()
                                       : connection_->consumed(in_acked_, in_.first());
  }
  if (socket_) {
    return consumed_of_socket();
  }
  const int fd = unread_fd_.valid() ? unread_fd_.get() : in_fd_.get();
  int unread = 0;
  if (in_gone_ || fd < 0) {
    return in_.first();
  }
  if (ioctl(fd, FIONREAD, &unread) != 0 || unread < 0) {
    return in_acked_;
  }
  const std::uint64_t written = in_.first() - in_acked_;
  return in_.first() - std::min(written, static_cast<std::uint64_t>(unread));
}

Result<void> GuestStream::pump_process() {
  if (terminal_) {
    return pump_terminal();
  }
  if (connection_) {
    pump_connection();
    return {};
  }
  if (socket_) {
    pump_socket();
    return {};
  }
  if (reads_in() && in_fd_.valid()) {
    write_in();
  }
  if (writes_out() && !out_eof_) {
    read_out(kRelayWindowBytes);
  }
  return {};
}

Result<void> GuestStream::pump_terminal() {
  MIGRATE_TRY(terminal_->take(in_));
  if (!out_eof_) {
    read_out(kRelayWindowBytes);
  }
  if (in_.empty() && in_eof_ && !in_finished_) {
    terminal_->hang_up();
    in_finished_ = true;
    out_eof_ = true;
  }
  return {};
}

void GuestStream::take_unread() {
  if (terminal_) {
    terminal_->take_unread();
  }
}

void GuestStream::yield_terminal() {
  if (terminal_ && !out_eof_) {
    drain();
    terminal_->give_back(in_, out_);
  }
}

void GuestStream::leave_to_children() {
  if (terminal_) {
    terminal_->let_go();
  }
}

void GuestStream::write_in() {
  while (!in_.empty()) {
    const std::string_view bytes = in_.view(in_.first(), kRelayChunkBytes);
    const ssize_t count = ::write(in_fd_.get(), bytes.data(), bytes.size());
    if (count > 0) {
      in_.drop_to(in_.first() + static_cast<std::uint64_t>(count));
    } else if (errno == EPIPE || errno == ECONNRESET) {
      drop_reader();
      return;
    } else if (errno != EINTR) {
      break;  // Full; also ENOMEM and kin, which pass.
    }
  }
  if (in_.empty() && in_eof_ && !in_finished_) {
    finish_in();
    return;
  }
  pollfd ours{in_fd_.get(), 0, 0};
  if (!in_finished_ && poll(&ours, 1, 0) == 1 && (ours.revents & POLLERR) != 0) {
    drop_reader();
  }
}

/// Lets the process see the end of file, and keeps a way to learn how much it has yet to read.
void GuestStream::finish_in() {
  const std::string path = "/proc/self/fd/" + std::to_string(in_fd_.get());
  unread_fd_.reset(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  if (unread_fd_.valid()) {
    in_fd_.reset();
    in_finished_ = true;
    return;
  }
  int unread = 0;  // No descriptors or no /proc: wait until the process has read everything.
  if (ioctl(in_fd_.get(), FIONREAD, &unread) == 0 && unread == 0) {
    in_fd_.reset();
    in_finished_ = true;
  }
}

void GuestStream::drop_reader() {
  in_gone_ = true;
  in_.drop_to(in_.end());
  if (!socket_ && !connection_) {
    in_fd_.reset();
    unread_fd_.reset();
  }
}

void GuestStream::read_out(std::uint64_t limit) {
  if (terminal_) {
    out_eof_ = !terminal_->read_out(out_, limit);
    return;
  }
  if (connection_) {
    const ConnectionEnd::Read read = connection_->read(in_fd_.get(), out_, limit - out_.size());
    out_eof_ = read != ConnectionEnd::Read::kGoesOn;
    if (read == ConnectionEnd::Read::kReset) {
      drop_reader();
    }
    return;
  }
  if (socket_) {
    out_eof_ = socket_->read(in_fd_.get(), out_, limit - std::min(limit, out_.size())) ==
               SocketEnd::Read::kEnded;
    return;
  }
  const int fd = out_fd_.get();
  std::array<char, kRelayChunkBytes> bytes;
  while (fd >= 0 && out_.size() < limit) {
    const std::size_t room = std::min<std::uint64_t>(bytes.size(), limit - out_.size());
    const ssize_t count = ::read(fd, bytes.data(), room);
    if (count > 0) {
      out_.append({bytes.data(), static_cast<std::size_t>(count)});
    } else if (count == 0 || (errno != EAGAIN && errno != EINTR)) {
      out_eof_ = true;
      out_fd_.reset();
      return;
    } else if (errno == EAGAIN) {
      return;
    }
  }
}

void GuestStream::drain() {
  if (terminal_) {
    constexpr std::uint64_t kMostOfTerminal = 1U << 20U;
    if (!out_eof_ && !out_gone_) {
      read_out(out_.size() + kMostOfTerminal);
    }
    return;
  }
  if (connection_ || socket_) {
    if (writes_out() && !out_eof_ && in_fd_.valid() && !is_calling()) {
      read_out(out_.size() + kRelayWindowBytes);
    }
    return;
  }
  const int fd = out_fd_.get();
  int unread = 0;
  if (!writes_out() || out_eof_ || fd < 0 || ioctl(fd, FIONREAD, &unread) != 0) {
    return;
  }
  read_out(out_.size() + static_cast<std::uint64_t>(std::max(unread, 0)) + 1);
}

void GuestStream::end_output() {
  if ((directions_ & wire::RELAY_OUT) != 0 && !out_eof_) {
    yield_terminal();
    out_eof_ = true;
    out_fd_.reset();
  }
}

/// Nobody reads the output at home: the process's next write shall fail with EPIPE.
void GuestStream::drop_out() {
  out_gone_ = true;
  out_.drop_to(out_.end());
  out_sent_ = out_.end();
  if (terminal_) {
    terminal_->hang_up();
  } else if (socket_) {  // That of a connection of TCP ends with the reset that comes.
    shutdown(in_fd_.get(), SHUT_RD);
  }
  out_fd_.reset();
}

void GuestStream::pump_link(Link& link) {
  send_taken(link);
  if (left_at_ && *left_at_ > in_acked_) {
    acknowledge(link, *left_at_);
  }
  while (!out_gone_ && out_sent_ < std::min(out_.end(), out_.first() + kRelayWindowBytes)) {
    const std::uint64_t room = out_.first() + kRelayWindowBytes - out_sent_;
    const wire::RelayMessage message =
        data_message(id_, out_, out_sent_, std::min(kRelayChunkBytes, room),
                     connection_ ? connection_->urgent() : std::nullopt);
    out_sent_ += message.data().content().size();
    link.send(message);
  }
  if (out_eof_ && !out_gone_ && out_sent_ == out_.end()) {
    send_close(link);
  }
  if (in_gone_ && !in_gone_sent_) {
    wire::RelayMessage message;
    message.mutable_close()->set_stream(id_);
    message.mutable_close()->set_offset(in_.end());
    message.mutable_close()->set_reader_gone(true);
    link.send(message);
    in_gone_sent_ = true;
  }
  if (in_.end() == in_acked_ || in_gone_) {
    return;
  }
  const std::uint64_t read_to = consumed();
  if (connection_) {
    connection_->note_consumed(read_to);
  }
  if (read_to - in_acked_ >= kRelayAckBytes || (read_to == in_.end() && read_to != in_acked_)) {
    acknowledge(link, read_to);
  }
}

void GuestStream::acknowledge(Link& link, std::uint64_t read_to) {
  wire::RelayMessage message;
  message.mutable_ack()->set_stream(id_);
  message.mutable_ack()->set_offset(read_to);
  link.send(message);
  in_acked_ = read_to;
}

void GuestStream::send_close(Link& link) {
  const bool has_left = connection_ && connection_->is_known_left();
  if (out_eof_sent_ && has_left == left_sent_) {
    return;
  }
  wire::RelayMessage message;
  message.mutable_close()->set_stream(id_);
  message.mutable_close()->set_offset(out_.end());
  message.mutable_close()->set_reset(connection_ && connection_->is_reset());
  message.mutable_close()->set_left(has_left);
  link.send(message);
  out_eof_sent_ = true;
  left_sent_ = has_left;
}

Result<void> GuestStream::accept_data(const wire::RelayData& data) {
  const std::uint64_t size = data.content().size();
  if ((directions_ & wire::RELAY_IN) == 0 || in_eof_ || size == 0 || size > kRelayChunkBytes ||
      data.offset() != in_.end()) {
    return fail(corrupt("accept input from home"));
  }
  in_.append(data.content());
  if (data.urgent() && connection_) {
    connection_->write_urgently(in_.end() - 1);
  }
  if (in_gone_) {
    in_.drop_to(in_.end());
  } else if (in_.end() - in_acked_ > kRelayWindowBytes) {
    return fail(corrupt("accept input from home beyond the window"));
  }
  return {};
}

Result<void> GuestStream::accept_ack(const wire::RelayAck& ack) {
  if (out_gone_) {
    return {};
  }
  if (ack.offset() < out_.first() || ack.offset() > out_sent_ ||
      (ack.closed() && (!out_eof_ || ack.offset() != out_.end()))) {
    return fail(corrupt("accept an acknowledgement from home"));
  }
  out_.drop_to(ack.offset());
  out_eof_acked_ = out_eof_acked_ || ack.closed();
  return {};
}

Result<void> GuestStream::accept_close(const wire::RelayClose& close) {
  if (close.reader_gone()) {
    if ((directions_ & wire::RELAY_OUT) == 0) {
      return fail(corrupt("accept the end of home's reader"));
    }
    drop_out();
    return {};
  }
  if ((directions_ & wire::RELAY_IN) == 0 || close.offset() != in_.end()) {
    return fail(corrupt("accept the end of home's input"));
  }
  in_eof_ = true;
  if (connection_ && close.reset()) {
    connection_->end_with_reset();
  }
  return {};
}

Result<void> GuestStream::accept_resumed(const wire::RelayResumed::Stream& resumed) {
  if (resumed.out_gone() || out_gone_) {
    drop_out();
    return {};
  }
  if (resumed.out_acked() < out_.first() || resumed.out_next() < resumed.out_acked() ||
      resumed.out_next() > out_.end()) {
    return fail(corrupt("resume the link to home"));
  }
  out_.drop_to(resumed.out_acked());
  out_sent_ = resumed.out_next();
  out_eof_sent_ = false;
  return {};
}

void GuestStream::describe(wire::RelayResume::Stream& resume) {
  in_acked_ = left_at_.value_or(consumed());
  in_gone_sent_ = in_gone_;
  resume.set_id(id_);
  resume.set_in_acked(in_acked_);
  resume.set_in_next(in_.end());
  resume.set_in_gone(in_gone_);
  resume.set_out_first(out_.first());
  taken_sent_ = is_accepted() && is_taken();
  resume.set_taken(taken_sent_);
}

void GuestStream::save(wire::RelayStreamState& state) const {
  state.set_id(id_);
  state.set_directions(directions_);
  state.set_in_next(left_at_.value_or(consumed()));
  state.set_in_gone(in_gone_);
  state.set_out_first(out_.first());
  const auto unacked = out_.view(out_.first(), out_.size());
  state.set_out_unacked(unacked.data(), unacked.size());
  state.set_out_eof(out_eof_);
  state.set_out_gone(out_gone_);
  if (terminal_) {
    *state.mutable_terminal() = terminal_->state();
  }
  if (connection_) {
    *state.mutable_connection() = connection_->state();
  }
}

bool GuestStream::flushed() const {
  return (directions_ & wire::RELAY_OUT) == 0 || out_gone_ ||
         (out_.empty() && (!out_eof_ || out_eof_acked_));
}

}  // namespace migrate
