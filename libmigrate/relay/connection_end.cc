#include "libmigrate/relay/connection_end.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <memory>

#include "libmigrate/links/tcp_socket.h"

namespace migrate {
namespace {

bool is_negative(std::uint64_t difference) {
  return static_cast<std::int64_t>(difference) < 0;
}

}  // namespace

void ConnectionEnd::prepare(int fd) {
  const int yes = 1;
  const int no = 0;
  const int from_where_it_is_read = -1;
  const linger at_once{};
  ::setsockopt(fd, SOL_SOCKET, SO_OOBINLINE, &yes, sizeof(yes));
  ::setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &yes, sizeof(yes));
  ::setsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &from_where_it_is_read, sizeof(from_where_it_is_read));
  ::setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
  ::setsockopt(fd, IPPROTO_TCP, TCP_CORK, &no, sizeof(no));
}

void ConnectionEnd::note(wire::ConnectionPlace& place) const {
  place.set_read_from(read_from_);
  place.set_written_from(written_from_);
  place.set_reset(is_reset_);
  if (urgent_) {
    place.set_urgent(*urgent_);
  }
}

Result<std::uint64_t> ConnectionEnd::adopt(const wire::ConnectionPlace& place, int fd,
                                           const StreamBuffer& read, std::uint64_t written) {
  read_from_ = place.read_from();
  written_from_ = place.written_from();
  is_reset_ = place.reset();
  urgent_ = place.has_urgent() ? std::optional(place.urgent()) : std::nullopt;
  const TcpCounts counts = MIGRATE_TRY(count_bytes(fd));
  // The counts of a socket that the other worker has reset begin again.
  const std::uint64_t behind = read.end() - (read_from_ + counts.taken);
  untaken_ = is_negative(behind) ? 0 : std::min(behind, counts.unread);
  take(fd);
  const std::uint64_t ahead = written_from_ + counts.given - written;
  return is_negative(ahead) ? written : written + ahead;
}

ConnectionEnd::Read ConnectionEnd::read(int fd, StreamBuffer& into, std::uint64_t most) {
  if (is_take_due() || most == 0) {
    return Read::kGoesOn;
  }
  int at_mark = 0;
  const bool is_urgent = ::ioctl(fd, SIOCATMARK, &at_mark) == 0 && at_mark != 0;
  const std::size_t room = is_urgent ? 1 : std::min(most, kRelayWindowBytes);
  const auto bytes = std::make_unique_for_overwrite<char[]>(room);
  // Never beyond the mark.
  const ssize_t count = ::recv(fd, bytes.get(), room, MSG_PEEK | MSG_DONTWAIT);
  if (count > 0) {
    if (is_urgent) {
      urgent_ = into.end();
    }
    into.append({bytes.get(), static_cast<std::size_t>(count)});
    untaken_ = static_cast<std::uint64_t>(count);
    return Read::kGoesOn;
  }
  if (count < 0 && (errno == EAGAIN || errno == EINTR || errno == ENOMEM)) {
    return Read::kGoesOn;
  }
  is_reset_ = is_reset_ || count < 0;
  return is_reset_ ? Read::kReset : Read::kEnded;
}

void ConnectionEnd::take(int fd) {
  while (untaken_ > 0) {
    const ssize_t count = ::recv(fd, nullptr, untaken_, MSG_TRUNC | MSG_DONTWAIT);
    if (count <= 0) {
      return;
    }
    untaken_ -= static_cast<std::uint64_t>(count);
  }
}

ConnectionEnd::Written ConnectionEnd::write(int fd, StreamBuffer& from) {
  while (!from.empty()) {
    const bool is_urgent = urgent_to_write_ == from.first();
    const bool is_before = urgent_to_write_ && *urgent_to_write_ > from.first();
    const std::uint64_t most = is_urgent ? 1
                               : is_before
                                   ? std::min(kRelayChunkBytes, *urgent_to_write_ - from.first())
                                   : kRelayChunkBytes;
    const std::string_view bytes = from.view(from.first(), most);
    const ssize_t count = ::send(fd, bytes.data(), bytes.size(),
                                 MSG_NOSIGNAL | MSG_DONTWAIT | (is_urgent ? MSG_OOB : 0));
    if (count > 0) {
      from.drop_to(from.first() + static_cast<std::uint64_t>(count));
    } else if (count == 0 || errno == EAGAIN || errno == ENOMEM || errno == ENOBUFS) {
      return Written::kFine;
    } else if (errno != EINTR) {
      is_reset_ = is_reset_ || errno != EPIPE;
      return Written::kBroken;
    }
  }
  return Written::kFine;
}

void ConnectionEnd::reset(int fd) {
  const sockaddr nobody{.sa_family = AF_UNSPEC, .sa_data = {}};
  ::connect(fd, &nobody, sizeof(nobody));
}

wire::RelayMessage data_message(std::uint32_t id, const StreamBuffer& buffer, std::uint64_t offset,
                                std::uint64_t most, std::optional<std::uint64_t> urgent) {
  const bool is_near = urgent && *urgent >= offset;
  const bool is_within = is_near && *urgent - offset < most;  // A peer says where it is.
  auto bytes = buffer.view(offset, is_within ? *urgent - offset + 1 : most);
  wire::RelayMessage message;
  wire::RelayData& data = *message.mutable_data();
  data.set_stream(id);
  data.set_offset(offset);
  data.set_content(bytes.data(), bytes.size());
  data.set_urgent(is_within && *urgent - offset + 1 == bytes.size());
  return message;
}

}  // namespace migrate
