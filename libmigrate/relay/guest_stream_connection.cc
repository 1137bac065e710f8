// What streams that are connections of TCP do otherwise than others.
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <string>
#include <utility>

#include "base/log.h"
#include "libmigrate/links/gateway.h"
#include "libmigrate/links/tcp_listener.h"
#include "libmigrate/relay/guest_stream.h"

namespace migrate {

Result<StreamEndpoint> GuestStream::open_connection(TcpPair pair) {
  struct stat status {};
  if (fstat(pair.end.get(), &status) != 0) {
    return fail(system_error("fstat", "relay stream " + std::to_string(id_)));
  }
  StreamEndpoint endpoint;
  endpoint.id = id_;
  endpoint.inode = status.st_ino;
  endpoint.process_end = std::move(pair.end);
  in_fd_ = std::move(pair.mate);
  MIGRATE_TRY(connection_->open(in_fd_.get(), std::move(pair.watch), out_.end(), in_.first()));
  return endpoint;
}

// The kernel would have sent a reset if the process had not read all of what was written.
void GuestStream::leave() {
  if (connection_) {
    connection_->note_left();
  }
  out_eof_ = true;
  left_at_ = in_.first();
  in_gone_ = true;
  in_.drop_to(in_.end());
}

bool GuestStream::wants_look() const {
  if (!in_fd_.valid()) {
    return false;
  }
  if (!connection_->is_taken()) {
    return connection_->is_open();
  }
  const bool is_late = in_.end() - in_acked_ >= kRelayWindowBytes / 2 || in_eof_;
  return (reads_in() && in_.empty() && !in_finished_ && is_late) ||
         connection_->wants_look(out_eof_);
}

void GuestStream::begin_call(int anchor) {
  auto mate = connection_->make_call(anchor);
  if (!mate) {
    log::warn("{}", mate.error().message());
    give_up_call();
    return;
  }
  in_fd_ = std::move(*mate);
}

void GuestStream::give_up_call() {
  in_fd_.reset();
  give_up_output();
  leave();
}

void GuestStream::open_called(std::optional<UniqueFd> mate,
                              const std::shared_ptr<TcpWatch>& watch) {
  if (!mate) {
    give_up_call();
    return;
  }
  in_fd_ = std::move(*mate);
  connection_->note_called();
  if (auto opened = connection_->open(in_fd_.get(), watch, out_.end(), in_.first()); !opened) {
    log::warn("{}", opened.error().message());
    give_up_call();
    return;
  }
  beginning_ = Beginning::kUnnoted;
}

void GuestStream::take_back_unanswered() {
  if (connection_ && in_fd_.valid() && connection_->is_unanswered()) {
    Gateway::take_back_mate(in_fd_.get());
    give_up_call();
  }
}

void GuestStream::go_on_calling() {
  if (is_calling() && call_state(in_fd_.get()) == CallState::kIdle) {
    if (auto called = connection_->call(in_fd_.get()); !called) {
      log::debug("{}", called.error().message());
      give_up_call();
    }
  }
}

void GuestStream::end_calling(const std::shared_ptr<TcpWatch>& watch) {
  const CallState state = call_state(in_fd_.get());
  if (state == CallState::kConnected &&
      connection_->open(in_fd_.get(), watch, out_.end(), in_.first())) {
    beginning_ = Beginning::kUnnoted;
  } else if (state == CallState::kFailed || state == CallState::kConnected) {
    give_up_call();
  }
}

void GuestStream::look_whether_taken() {
  if (is_accepted() && connection_->is_open() && (!is_taken() || inode() == 0)) {
    connection_->look_whether_taken();
  }
}

void GuestStream::send_taken(Link& link) {
  if (is_accepted() && is_taken() && !taken_sent_) {
    wire::RelayMessage message;
    message.mutable_taken()->set_stream(id_);
    link.send(message);
    taken_sent_ = true;
  }
}

bool GuestStream::is_over() const {
  const bool out_over = out_gone_ || out_eof_acked_;
  const bool in_over = in_gone_ ? in_gone_sent_ : in_finished_ && in_acked_ == in_.end();
  return is_accepted() && out_over && in_over;
}

void GuestStream::pump_connection() {
  if (!in_fd_.valid() || is_calling() || beginning_ == Beginning::kUnnoted) {
    return;
  }
  beginning_ = Beginning::kOver;
  if (reads_in() && connection_->write(in_fd_.get(), in_) == ConnectionEnd::Written::kBroken) {
    drop_reader();
  }
  if (writes_out() && !out_eof_ && out_.size() < kRelayWindowBytes) {
    read_out(kRelayWindowBytes);
  }
  if (out_eof_ && !in_gone_ && connection_->has_left()) {
    leave();
  }
  if (reads_in() && in_eof_ && in_.empty() && !in_finished_) {
    finish_connection();
  }
  if (out_gone_ && in_finished_) {
    ConnectionEnd::reset(in_fd_.get());  // Also if it has been: then nothing comes of it.
    in_fd_.reset();
  }
  if (is_accepted() && out_eof_ && (in_gone_ || in_finished_)) {
    in_fd_.reset();  // There may be many of them.
  }
}

// Its kernel forgets a connection that is over, and with it what the process has read: so the end
// waits until it has read all, if it is the end of both directions.
void GuestStream::finish_connection() {
  const std::uint64_t read_to = consumed();
  if (connection_->ends_with_reset()) {
    int unread = 0;  // Who writes on is to hear of it.
    if (read_to == in_.end() ||
        (out_gone_ && ioctl(in_fd_.get(), FIONREAD, &unread) == 0 && unread > 0)) {
      ConnectionEnd::reset(in_fd_.get());
      in_finished_ = true;
      out_eof_ = true;
    }
  } else if (!out_eof_ || read_to == in_.end()) {
    shutdown(in_fd_.get(), SHUT_WR);
    in_finished_ = true;
  }
}

void GuestStream::take() {
  if (beginning_ == Beginning::kUnnoted) {
    beginning_ = Beginning::kNoted;
  }
  if (connection_ && in_fd_.valid() && !is_calling()) {
    connection_->take(in_fd_.get());
  }
  if (socket_ && in_fd_.valid()) {
    socket_->take(in_fd_.get());
  }
}

void GuestStream::give_up_output() {
  out_eof_ = true;
  if (connection_) {
    connection_->give_up();
  } else {
    log::error("{}", corrupt("wait for the output of a socket,").message());
  }
}

}  // namespace migrate
