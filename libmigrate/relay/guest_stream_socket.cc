// What streams do otherwise than others whose end in the process is a Unix domain socket.
#include <fcntl.h>
#include <linux/sockios.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <algorithm>
#include <string>
#include <utility>

#include "libmigrate/proc/unix_socket.h"
#include "libmigrate/relay/guest_stream.h"

namespace migrate {

Result<StreamEndpoint> GuestStream::open_pair(UnixPair pair) {
  struct stat status {};
  const int mate = pair.mate.get();
  if (fstat(pair.end.get(), &status) != 0 ||
      fcntl(mate, F_SETFL, fcntl(mate, F_GETFL) | O_NONBLOCK) != 0) {
    return fail(system_error("set up a socket of", "relay stream " + std::to_string(id_)));
  }
  StreamEndpoint endpoint;
  endpoint.id = id_;
  endpoint.inode = status.st_ino;
  endpoint.process_end = std::move(pair.end);
  inode_ = status.st_ino;
  in_fd_ = std::move(pair.mate);
  socket_.emplace();
  MIGRATE_TRY(socket_->open_journal());
  if (in_gone_ || out_gone_) {
    shutdown(mate, in_gone_ && out_gone_ ? SHUT_RDWR : in_gone_ ? SHUT_WR : SHUT_RD);
  }
  return endpoint;
}

void GuestStream::pump_socket() {
  if (!in_fd_.valid()) {
    return;
  }
  if (reads_in() && socket_->write(in_fd_.get(), in_) == SocketEnd::Written::kBroken) {
    drop_reader();
  }
  if (reads_in() && in_.empty() && in_eof_ && !in_finished_) {
    shutdown(in_fd_.get(), SHUT_WR);
    in_finished_ = true;
  }
  if (writes_out() && !out_eof_ && out_.size() < kRelayWindowBytes) {
    read_out(kRelayWindowBytes);
  }
  pollfd polled{in_fd_.get(), 0, 0};
  if (looks_for_hang_up() && poll(&polled, 1, 0) > 0 && (polled.revents & POLLHUP) != 0) {
    drop_reader();
  }
}

// Once the process sends no more: whether it has closed it.
bool GuestStream::looks_for_hang_up() const {
  return (out_eof_ || out_gone_) && !in_gone_ && !in_finished_;
}

// The mate may have sent what nobody has read yet, or the process may have closed its end, and with
// it what it has not read.
std::uint64_t GuestStream::consumed_of_socket() const {
  int unread = 0;
  if (in_gone_ || !in_fd_.valid() || (ioctl(in_fd_.get(), SIOCOUTQ, &unread) == 0 && unread == 0)) {
    return in_.first();
  }
  const auto seen = read_unix_socket(inode_, in_fd_.get());
  if (!seen) {
    return seen.error().code == ErrorCode::kNotFound ? in_.first() : in_acked_;
  }
  return in_.first() - std::min<std::uint64_t>(in_.first() - in_acked_, seen->unread_bytes);
}

bool GuestStream::has_more() const {
  if (!writes_out() || out_eof_) {
    return false;
  }
  return (connection_ && connection_->has_more(out_.end())) ||
         (socket_ && in_fd_.valid() && socket_->has_more(in_fd_.get()));
}

}  // namespace migrate
