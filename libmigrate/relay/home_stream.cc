#include "libmigrate/relay/home_stream.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <string>
#include <string_view>

#include "base/log.h"
#include "libmigrate/links/tcp_socket.h"
#include "libmigrate/relay/terminal_frames.h"

namespace migrate {
namespace {

/// What POLLOUT promises room for: a page of a pipe; little for a device that says nothing of it.
constexpr std::uint64_t kBlockingWriteBytes = 512;

/// A terminal that may be opened again: not the master side of one, which would make another
/// terminal, and not /dev/tty, which means the opener's.
bool may_reopen_terminal(int fd, const struct stat& status) {
  int number = 0;
  return ioctl(fd, TIOCGPTN, &number) != 0 && major(status.st_rdev) != 5;
}

// That which /dev/tty stands for.
std::uint64_t terminal_device_of(int fd, const struct stat& status) {
  const Result<std::uint64_t> device = migrate::terminal_device(fd);
  return device ? *device : status.st_rdev;
}

}  // namespace

HomeStream::HomeStream(std::uint32_t id, std::uint32_t directions, UniqueFd real,
                       const std::optional<HomeTerminal::Found>& terminal,
                       const std::optional<ConnectionEnd::Start>& connection)
    : id_(id), directions_(directions), fd_(std::move(real)) {
  if (connection) {
    connection_.emplace(*connection);
    ConnectionEnd::prepare(fd_.get());
    local_ = SocketName::of(fd_.get()).value_or(SocketName()).to_bytes();
    peer_ = SocketName::of_peer(fd_.get()).value_or(SocketName()).to_bytes();
  }
  if (terminal) {
    terminal_.emplace(*terminal);
  }
  reopen();
}

// Of a terminal we also tell what nobody has typed.
std::uint64_t HomeStream::most_input() const {
  return terminal_ ? kRelayWindowBytes / 2 : kRelayWindowBytes;
}

void HomeStream::reopen() {
  struct stat status {};
  if (fstat(fd_.get(), &status) != 0) {
    return;
  }
  if (S_ISSOCK(status.st_mode) && !connection_) {
    socket_.emplace();
  }
  device_ = terminal_ ? terminal_device_of(fd_.get(), status) : 0;
  const bool pipe = S_ISFIFO(status.st_mode);
  if (!pipe && !(terminal_ && may_reopen_terminal(fd_.get(), status))) {
    return;
  }
  const int access = has_in() && has_out() ? O_RDWR : has_out() ? O_WRONLY : O_RDONLY;
  const std::string path = "/proc/self/fd/" + std::to_string(fd_.get());
  UniqueFd own(::open(path.c_str(), access | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
  struct stat own_status {};
  if (own.valid() && fstat(own.get(), &own_status) == 0 && own_status.st_ino == status.st_ino &&
      own_status.st_rdev == status.st_rdev) {
    fd_ = std::move(own);
    nonblocking_ = true;
  }
}

Error HomeStream::corrupt(const char* what) const {
  return make_error(ErrorCode::kCorrupt, what, "relay stream " + std::to_string(id_));
}

void HomeStream::adopt(const wire::HomeRelayState::Stream& noted) {
  in_ = StreamBuffer(noted.in_first());
  in_.append(noted.in_content());
  in_sent_ = noted.in_first();
  in_eof_ = noted.in_eof();
  in_gone_ = noted.in_gone();
  out_ = StreamBuffer(noted.out_first());
  out_acked_ = noted.out_first();
  out_gone_ = noted.out_gone();
  out_closed_ = noted.out_closed();
  out_eof_ = out_closed_;
  if (terminal_) {
    terminal_->adopt(noted.terminal());
  }
  if (!noted.connection().peer().empty()) {  // One that is over does not know it any more.
    local_ = noted.connection().local();
    peer_ = noted.connection().peer();
  }
  if (connection_ && fd_.valid()) {
    adopt_connection(noted);
  }
  if (socket_ && fd_.valid()) {
    adopt_socket(noted);
  }
  close_if_done();
}

void HomeStream::adopt_socket(const wire::HomeRelayState::Stream& noted) {
  UniqueFd journal;
  if (found_journal_.valid()) {
    auto opened = SocketEnd::open_journal_of(found_journal_.get());
    if (opened) {
      journal = std::move(*opened);
      journal_descriptor_ = noted.journal_descriptor();
      journal_inode_ = noted.journal_inode();
    } else {
      log::error("{}", opened.error().message());
    }
    found_journal_.reset();
  }
  set_nonblocking();
  const std::uint64_t written =
      socket_->adopt(noted.socket(), fd_.get(), std::move(journal), noted.out_first());
  if (!out_gone_ && !out_closed_) {
    out_ = StreamBuffer(written);
    out_acked_ = written;
  }
}

bool HomeStream::needs_journal() const {
  return socket_ && fd_.valid() && has_out() && !out_gone_ && !out_closed_ &&
         journal_descriptor_ == 0 && !does_without_journal_;
}

bool HomeStream::begin_journal(Result<AcceptedSocket> made) {
  struct stat status {};
  Result<void> kept = made ? Result<void>() : Result<void>(fail(made.error()));
  if (kept && fstat(made->real.get(), &status) != 0) {
    kept = fail(system_error("look at", "a journal of a Unix domain socket"));
  }
  if (kept) {
    kept = socket_->keep_journal(made->real.get(), fd_.get(), out_.first());
  }
  if (!kept) {
    log::warn("relay stream {} does without a journal: {}", id_, kept.error().message());
    does_without_journal_ = true;
    return false;
  }
  set_nonblocking();
  journal_descriptor_ = made->descriptor;
  journal_inode_ = status.st_ino;
  return true;
}

// splice(2) waits for room where this is not set, and the deputy does not use the socket.
void HomeStream::set_nonblocking() {
  fcntl(fd_.get(), F_SETFL, fcntl(fd_.get(), F_GETFL) | O_NONBLOCK);
}

void HomeStream::adopt_connection(const wire::HomeRelayState::Stream& noted) {
  const auto written = connection_->adopt(noted.connection(), fd_.get(), in_, noted.out_first());
  if (!written) {
    log::error("{}", written.error().message());
    ConnectionEnd::reset(fd_.get());
    return;
  }
  if (!out_gone_ && !out_closed_) {
    out_ = StreamBuffer(*written);
    out_acked_ = out_.first();
  }
}

// Output that came and was not written is not noted: it was not acknowledged and comes again.
void HomeStream::note(wire::HomeRelayState::Stream& noted) const {
  noted.set_id(id_);
  noted.set_directions(directions_);
  noted.set_in_first(in_.first());
  const auto content = in_.view(in_.first(), in_.size());
  noted.set_in_content(content.data(), content.size());
  noted.set_in_eof(in_eof_);
  noted.set_in_gone(in_gone_);
  noted.set_out_first(out_.first());
  noted.set_out_gone(out_gone_);
  noted.set_out_closed(out_closed_);
  if (terminal_) {
    *noted.mutable_terminal() = terminal_->note();
  }
  if (connection_) {
    connection_->note(*noted.mutable_connection());
    noted.mutable_connection()->set_local(local_);
    noted.mutable_connection()->set_peer(peer_);
  }
  if (socket_) {
    socket_->note(*noted.mutable_socket());
    noted.set_journal_descriptor(journal_descriptor_);
    noted.set_journal_inode(journal_inode_);
  }
}

void HomeStream::follow_terminal(bool in_foreground, bool may_take) {
  if (!is_terminal() || in_gone_ || in_eof_) {
    return;
  }
  pollfd polled{fd_.get(), 0, 0};
  if (poll(&polled, 1, 0) > 0) {  // It was hung up.
    in_eof_ = true;
  } else {
    terminal_->follow(fd_.get(), in_foreground, may_take, in_);
  }
}

void HomeStream::take_terminal_again() {
  if (terminal_) {
    terminal_->go_on();
  }
}

void HomeStream::collect(std::vector<pollfd>& descriptors, bool may_read) const {
  short events = -1;  // -1: not polled, as a hang-up would wake us again and again.
  if (reads_in() && has_room() && may_read && (!terminal_ || terminal_->is_taken())) {
    events = POLLIN;
  }
  if (fd_.valid() && has_out() && !out_gone_ && !out_closed_) {
    if (!out_.empty()) {
      events = static_cast<short>((events < 0 ? 0 : events) | POLLOUT);
    } else if (events < 0 && (!has_in() || (is_two_way() && in_eof_))) {
      events = 0;  // To learn that the reader has gone.
    }
  }
  if (events >= 0) {
    descriptors.push_back({fd_.get(), events, 0});
  }
}

void HomeStream::pump_real(short events, bool may_read) {
  if (!out_.empty() && (events & (POLLOUT | POLLERR | POLLHUP)) != 0) {
    write_out();
  }
  if (!has_in() && has_out() && !out_gone_ && (events & POLLERR) != 0) {
    drop_out();
  }
  if (is_two_way() && in_eof_ && !out_gone_ && !out_closed_ &&
      (events & (POLLERR | POLLHUP)) != 0) {
    drop_out();  // The peer, which had ended its half, has reset the other, or closed it.
  }
  if (may_read && reads_in() && has_room() && (!terminal_ || terminal_->is_taken()) &&
      (events & (POLLIN | POLLERR | POLLHUP)) != 0) {
    read_in();
  }
  if (out_eof_ && out_.empty() && !out_closed_) {
    finish_out();
  }
}

void HomeStream::read_in() {
  if (connection_) {
    in_eof_ = connection_->read(fd_.get(), in_, most_input() - in_.size()) !=
              ConnectionEnd::Read::kGoesOn;
    return;
  }
  if (socket_) {
    in_eof_ = socket_->read(fd_.get(), in_, most_input() - in_.size()) != SocketEnd::Read::kGoesOn;
    return;
  }
  std::array<char, kRelayChunkBytes> bytes;
  do {
    constexpr std::size_t kMostOfTerminal = 1024;
    const std::size_t room = std::min<std::uint64_t>(terminal_ ? kMostOfTerminal : bytes.size(),
                                                     most_input() - in_.size());
    const ssize_t count = read(fd_.get(), bytes.data(), room);
    const std::string_view read_bytes(bytes.data(),
                                      static_cast<std::size_t>(std::max(count, ssize_t{0})));
    if (count > 0 && terminal_) {
      terminal_->add_typed(read_bytes, in_);
    } else if (count > 0) {
      in_.append(read_bytes);
    } else if (count == 0 || (errno != EAGAIN && errno != EINTR)) {
      in_eof_ = true;  // EIO: the terminal was hung up.
      return;
    } else if (errno == EAGAIN) {
      return;
    }
  } while (nonblocking_ && has_room() && !terminal_);
}

void HomeStream::write_out() {
  if (terminal_) {
    write_terminal();
    return;
  }
  if (connection_) {
    if (connection_->write(fd_.get(), out_) == ConnectionEnd::Written::kBroken) {
      drop_out();
    }
    return;
  }
  if (socket_) {
    if (needs_journal()) {
      return;
    }
    if (socket_->write(fd_.get(), out_) == SocketEnd::Written::kBroken) {
      drop_out();
    }
    return;
  }
  while (!out_.empty() && fd_.valid()) {
    const auto bytes =
        out_.view(out_.first(), nonblocking_ ? kRelayChunkBytes : kBlockingWriteBytes);
    const ssize_t count = ::write(fd_.get(), bytes.data(), bytes.size());
    if (count > 0) {
      out_.drop_to(out_.first() + static_cast<std::uint64_t>(count));
    } else if (count < 0 && errno != EAGAIN && errno != EINTR && errno != ENOMEM &&
               errno != ENOBUFS) {
      drop_out();
      return;
    } else if (count == 0 || errno != EINTR) {
      return;
    }
    if (!nonblocking_) {
      return;  // Poll again before the next bite.
    }
  }
}

// What is corrupt ends the output: nothing of it can be read any more.
void HomeStream::write_terminal() {
  while (!out_.empty() && fd_.valid()) {
    const auto unit = first_unit(out_.view(out_.first(), kRelayChunkBytes));
    if (unit && !*unit) {
      return;
    }
    std::size_t done = unit ? (*unit)->bytes : 0;
    if (unit && (*unit)->kind == TerminalFrame::kPlain) {
      const auto bite = terminal_->next_bite(fd_.get(), (*unit)->content);
      const std::size_t most = nonblocking_ ? kRelayChunkBytes : kBlockingWriteBytes;
      const std::string_view bytes =
          (*unit)->content.substr(bite.skipped, std::min(bite.written, most));
      const ssize_t count = ::write(fd_.get(), bytes.data(), bytes.size());
      if (count < 0 && errno != EAGAIN && errno != EINTR) {
        drop_out();
        return;
      }
      if (count < 0) {
        return;
      }
      const std::size_t taken = bite.skipped + static_cast<std::size_t>(count);
      done = taken == (*unit)->content.size() ? done : taken;
    } else if (!unit || !terminal_->apply(fd_.get(), **unit, in_)) {
      drop_out();
      return;
    }
    out_.drop_to(out_.first() + done);
    if (!nonblocking_) {
      return;  // Poll again before the next bite.
    }
  }
}

void HomeStream::take() {
  if (connection_ && fd_.valid()) {
    connection_->take(fd_.get());
  }
  if (socket_ && fd_.valid()) {
    socket_->take(fd_.get());
  }
}

// As the process's end was left: who has not read all has said so to the peer by a reset.
void HomeStream::leave_connection() {
  int unread = 0;
  const bool is_rude =
      out_reset_ || !in_.empty() || (::ioctl(fd_.get(), FIONREAD, &unread) == 0 && unread > 0);
  if (is_rude) {
    ConnectionEnd::reset(fd_.get());
  } else {
    ::shutdown(fd_.get(), SHUT_RDWR);
  }
}

void HomeStream::drop_in() {
  out_reset_ = out_reset_ || !in_.empty();  // Who leaves a connection unread resets it.
  if (connection_ && fd_.valid() && (out_closed_ || out_gone_)) {
    leave_connection();
  }
  if (socket_ && fd_.valid()) {
    ::shutdown(fd_.get(), SHUT_RD);
  }
  in_gone_ = true;
  in_.drop_to(in_.end());
  in_sent_ = in_.end();
  close_if_done();
}

void HomeStream::drop_out() {
  out_gone_ = true;
  out_.drop_to(out_.end());
  close_if_done();
}

void HomeStream::finish_out() {
  if (connection_ && (out_reset_ || in_gone_ || leaves_)) {
    leave_connection();
    in_gone_ = true;
  } else if (is_two_way()) {
    ::shutdown(fd_.get(), SHUT_WR);
  }
  out_closed_ = true;
  close_if_done();
}

void HomeStream::close_if_done() {
  if ((!has_in() || in_gone_) && (!has_out() || out_closed_ || out_gone_)) {
    let_go();
  }
}

void HomeStream::let_go() {
  if (is_terminal()) {
    terminal_->leave(fd_.get());
  }
  fd_.reset();
}

void HomeStream::close() {
  in_gone_ = has_in();
  out_closed_ = has_out();
  let_go();
}

void HomeStream::end(bool was_lost) {
  if (connection_ && fd_.valid() && (was_lost || !in_.empty())) {
    ConnectionEnd::reset(fd_.get());
  }
  close();
}

void HomeStream::pump_link(Link& link) {
  while (in_sent_ < in_.end() && !in_gone_) {
    const wire::RelayMessage message = data_message(
        id_, in_, in_sent_, kRelayChunkBytes, connection_ ? connection_->urgent() : std::nullopt);
    in_sent_ += message.data().content().size();
    link.send(message);
  }
  if (in_eof_ && !in_eof_sent_ && !in_gone_) {
    wire::RelayMessage message;
    message.mutable_close()->set_stream(id_);
    message.mutable_close()->set_offset(in_.end());
    message.mutable_close()->set_reset(connection_ && connection_->is_reset());
    link.send(message);
    in_eof_sent_ = true;
  }
  if (out_gone_ && !out_gone_sent_) {
    wire::RelayMessage message;
    message.mutable_close()->set_stream(id_);
    message.mutable_close()->set_offset(out_.end());
    message.mutable_close()->set_reader_gone(true);
    link.send(message);
    out_gone_sent_ = true;
  }
  const std::uint64_t news = out_.first() - out_acked_;
  const bool closed_news = out_closed_ && !out_closed_sent_;
  if (closed_news || news >= kRelayAckBytes || (news > 0 && out_.empty())) {
    wire::RelayMessage message;
    message.mutable_ack()->set_stream(id_);
    message.mutable_ack()->set_offset(out_.first());
    message.mutable_ack()->set_closed(out_closed_);
    link.send(message);
    out_acked_ = out_.first();
    out_closed_sent_ = out_closed_;
  }
}

Result<void> HomeStream::accept_data(const wire::RelayData& data) {
  const std::uint64_t size = data.content().size();
  if (!has_out() || out_eof_ || size == 0 || size > kRelayChunkBytes ||
      data.offset() != out_.end()) {
    return fail(corrupt("accept output of the process"));
  }
  out_.append(data.content());
  if (data.urgent() && connection_) {
    connection_->write_urgently(out_.end() - 1);
  }
  if (out_gone_ || !fd_.valid()) {
    out_.drop_to(out_.end());
  } else if (out_.end() - out_acked_ > kRelayWindowBytes) {
    return fail(corrupt("accept output of the process beyond the window"));
  }
  return {};
}

Result<void> HomeStream::accept_ack(const wire::RelayAck& ack) {
  if (in_gone_) {
    return {};
  }
  if (!has_in() || ack.closed() || ack.offset() < in_.first() || ack.offset() > in_sent_) {
    return fail(corrupt("accept an acknowledgement of the process's place"));
  }
  drop_in_to(ack.offset());
  return {};
}

// Of a terminal's input what is left begins with a unit: a place may say that it has read half a
// frame, but what it gives back is read from there.
void HomeStream::drop_in_to(std::uint64_t offset) {
  in_.drop_to(terminal_ ? in_.first() +
                              whole_units(in_.view(in_.first(), in_.size()), offset - in_.first())
                        : offset);
}

Result<void> HomeStream::accept_close(const wire::RelayClose& close) {
  if (close.reader_gone()) {
    if (!has_in()) {
      return fail(corrupt("accept the end of the process's reader"));
    }
    drop_in();
    return {};
  }
  if (!has_out() || close.offset() != out_.end()) {
    return fail(corrupt("accept the end of the process's output"));
  }
  out_eof_ = true;
  out_closed_sent_ = false;
  out_reset_ = out_reset_ || (close.reset() && connection_);
  if (close.left() && connection_) {
    leaves_ = true;
    if (out_closed_ || out_gone_) {
      drop_in();
    }
  }
  return {};
}

Result<void> HomeStream::check_resume(const wire::RelayResume::Stream& resume) const {
  const bool in_fits = !has_in() || in_gone_ || resume.in_gone() ||
                       (resume.in_acked() >= in_.first() && resume.in_next() >= resume.in_acked() &&
                        resume.in_next() <= in_.end());
  if (!in_fits || (has_out() && !out_gone_ && resume.out_first() > out_.end())) {
    return fail(corrupt("resume the link to the process's place"));
  }
  return {};
}

void HomeStream::accept_resume(const wire::RelayResume::Stream& resume) {
  if (has_in() && !in_gone_) {
    if (resume.in_gone()) {
      in_.drop_to(std::clamp(resume.in_acked(), in_.first(), in_.end()));
      drop_in();
    } else {
      drop_in_to(resume.in_acked());
      in_sent_ = resume.in_next();
      in_eof_sent_ = false;
    }
  }
  out_closed_sent_ = false;
}

void HomeStream::describe(wire::RelayResumed::Stream& resumed) {
  out_acked_ = out_.first();
  out_gone_sent_ = out_gone_;
  resumed.set_id(id_);
  resumed.set_out_acked(out_.first());
  resumed.set_out_next(out_.end());
  resumed.set_out_gone(out_gone_);
}

}  // namespace migrate
