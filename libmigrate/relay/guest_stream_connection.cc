// What streams that are connections of TCP do otherwise than others.
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <string>
#include <utility>

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
  const bool is_late = in_.end() - in_acked_ >= kRelayWindowBytes / 2 || in_eof_;
  return (reads_in() && in_.empty() && !in_finished_ && is_late) ||
         connection_->wants_look(out_eof_);
}

void GuestStream::pump_connection() {
  if (!in_fd_.valid()) {
    return;
  }
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
  if (connection_ && in_fd_.valid()) {
    connection_->take(in_fd_.get());
  }
}

void GuestStream::give_up_output() {
  out_eof_ = true;
  connection_->give_up();
}

}  // namespace migrate
