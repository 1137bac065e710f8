// A connection of TCP: the real socket stays with the deputy at home, and there is a pair of
// sockets with the same names, one of which the process has and the other the relay.
#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <string>
#include <utility>

#include "libmigrate/carriers/internal/network_socket.h"
#include "libmigrate/carriers/internal/relayed.h"
#include "libmigrate/carriers/internal/socket_options.h"
#include "libmigrate/carriers/internal/table.h"
#include "libmigrate/carriers/internal/tools.h"
#include "libmigrate/links/tcp_socket.h"

namespace migrate::carriers {
namespace {

// Whether home has heard of it: it was there before, or has come to be by way of home. Of the
// latter those that are over are not known any more, but need nobody either.
bool was_brought(const FindContext& context, const Sighting& seen, int fd, const TcpInfo& info) {
  if (is_known_relay(context, seen)) {
    return true;
  }
  const bool was_connected = info.bytes_acked > 0 || info.bytes_received > 0 ||
                             is_elsewhere(fd, context.process()).value_or(false);
  return context.is_guest() && info.state() == TCP_CLOSE && was_connected;
}

Reason reason_of_state(const TcpInfo& info, bool was_brought) {
  switch (info.state()) {
    case TCP_SYN_SENT:
    case TCP_SYN_RECV:
      return {"SOCKET_CONNECTING", {}};
    case TCP_CLOSE:
      break;
    default:
      return {};
  }
  const bool was_connected = was_brought || info.bytes_acked > 0 || info.bytes_received > 0;
  return was_connected ? Reason{} : Reason{"SOCKET_KIND", "it is not connected"};
}

// Of a connection that is over the kernel knows only our own name.
Result<void> find_names(int fd, std::uint8_t state, int place, wire::Connection& connection) {
  const SocketName local = MIGRATE_TRY(SocketName::of(fd));
  auto peer = SocketName::of_peer(fd);
  if (!peer && state != TCP_CLOSE) {
    return fail(peer.error());
  }
  connection.set_local(local.to_bytes());
  const auto port = static_cast<std::uint16_t>(place + 1);
  connection.set_peer((peer ? *peer : SocketName::nobody_beside(local, port)).to_bytes());
  connection.set_only_ipv6(local.family() == AF_INET6 &&
                           number_of(fd, IPPROTO_IPV6, IPV6_V6ONLY) == 1);
  if (local.is_link_local() || (peer && peer->is_link_local())) {
    return fail(make_error(ErrorCode::kUnsupported, "carry", "a link-local address"));
  }
  return {};
}

// The process has called shutdown(SHUT_RD): an end that the other side has not sent.
bool has_ended_receiving(int fd, std::uint8_t state) {
  pollfd polled{fd, POLLRDHUP, 0};
  return (state == TCP_ESTABLISHED || state == TCP_FIN_WAIT2 || state == TCP_FIN_WAIT1) &&
         ::poll(&polled, 1, 0) > 0 && (polled.revents & POLLRDHUP) != 0;
}

struct ProcessCounts {
  TcpCounts bytes;
  bool has_read_ahead = false;  // The process has read an urgent byte before those in front of it.
};

// Exact if the process is frozen: nobody sees the option otherwise meanwhile.
Result<ProcessCounts> count_process_bytes(int fd, bool is_frozen) {
  if (!is_frozen) {
    return ProcessCounts{MIGRATE_TRY(count_bytes(fd))};
  }
  const int before = number_of(fd, SOL_SOCKET, SO_OOBINLINE);
  const int in_line = 1;
  int up_to_mark = 0;
  char urgent = 0;
  const bool is_marked = before == 0 && ::ioctl(fd, SIOCINQ, &up_to_mark) == 0;
  const bool was_read =
      ::recv(fd, &urgent, 1, MSG_OOB | MSG_PEEK | MSG_DONTWAIT) < 0 && errno == EINVAL;
  ::setsockopt(fd, SOL_SOCKET, SO_OOBINLINE, &in_line, sizeof(in_line));
  auto counts = count_bytes(fd);
  bool is_ahead =
      is_marked && was_read && counts && counts->unread > static_cast<std::uint64_t>(up_to_mark);
  if (is_ahead && up_to_mark == 0 && ::recv(fd, &urgent, 1, MSG_DONTWAIT) == 1) {
    is_ahead = false;  // Nothing was in front of it: its next read would have passed it.
    counts = count_bytes(fd);
  }
  ::setsockopt(fd, SOL_SOCKET, SO_OOBINLINE, &before, sizeof(before));
  return ProcessCounts{MIGRATE_TRY(std::move(counts)), is_ahead};
}

// How far the process has come.
bool describe_counts(FindContext& context, const Sighting& seen, int fd, const TcpInfo& info,
                     wire::Connection& connection) {
  const auto counts = count_process_bytes(fd, context.draft() != nullptr);
  if (!counts) {
    return context.refuse("SOCKET_SETTING", seen, counts.error().message());
  }
  connection.set_taken_bytes(counts->bytes.taken);
  connection.set_given_bytes(counts->bytes.given);
  if (counts->has_read_ahead) {
    return context.refuse("SOCKET_URGENT", seen);
  }
  if (info.state() == TCP_CLOSE && counts->bytes.unread > 0 &&
      was_brought(context, seen, fd, info)) {
    return context.refuse("SOCKET_UNREAD", seen);
  }
  pollfd polled{fd, 0, 0};
  connection.set_is_over(info.state() == TCP_CLOSE && counts->bytes.unread == 0);
  connection.set_has_error(::poll(&polled, 1, 0) > 0 && (polled.revents & POLLERR) != 0);
  return true;
}

// All that is to be said of the socket itself.
bool describe(FindContext& context, const Sighting& seen, int fd, const TcpInfo& info,
              wire::Connection& connection) {
  const int place = context.objects().connections_size();
  if (auto named = find_names(fd, info.state(), place, connection); !named) {
    return context.refuse("SOCKET_SETTING", seen, named.error().message());
  }
  auto options = changed_tcp_options(fd, number_of(fd, SOL_SOCKET, SO_DOMAIN));
  if (!options) {
    return context.refuse("SOCKET_SETTING", seen, options.error().message());
  }
  *connection.mutable_options() = std::move(*options);
  connection.set_send_ended(has_sent_end(info.state()) || info.state() == TCP_CLOSE);
  connection.set_receive_ended(has_ended_receiving(fd, info.state()));
  struct stat status {};
  if (::fstat(fd, &status) == 0) {
    connection.set_owner(status.st_uid);
    connection.set_group(status.st_gid);
  }
  return describe_counts(context, seen, fd, info, connection);
}

bool find_connection(FindContext& context, const Sighting& seen, wire::OpenFile& file) {
  const UniqueFd fd = context.fetch(seen.number);
  const auto info = find_tcp_socket(context, seen, fd);
  if (!info) {
    return false;
  }
  const bool is_brought = was_brought(context, seen, fd.get(), *info);
  if (const Reason reason = reason_of_state(*info, is_brought); !reason.code.empty()) {
    return context.refuse(reason.code, seen, reason.detail);
  }
  if (context.is_guest() && !is_brought) {
    return context.refuse("SOCKET_ABROAD", seen);
  }
  wire::Connection connection;
  if (!describe(context, seen, fd.get(), *info, connection)) {
    return false;
  }
  if (context.objects().connections_size() >= kMostNetworkSockets) {
    return context.refuse("SOCKET_KIND", seen, "too many connections");
  }
  connection.set_stream(context.known_stream(inode_in(seen.link)).value_or(0));
  file.set_position(static_cast<std::uint64_t>(context.objects().connections_size()));
  file.mutable_identity()->set_path(seen.link);
  *context.objects().add_connections() = std::move(connection);
  return true;
}

void settle_connection(FindContext& context, std::uint32_t number, wire::OpenFile& file) {
  wire::Connection& connection =
      *context.objects().mutable_connections(static_cast<int>(file.position()));
  file.set_position(0);
  if (connection.stream() == 0) {
    connection.set_stream(context.stream_to(number, file.identity().path()));
  }
  file.set_object(connection.stream());
}

const wire::Connection* connection_of(const wire::Objects& objects, std::uint64_t stream) {
  const auto found = std::ranges::find(objects.connections(), stream, &wire::Connection::stream);
  return found == objects.connections().end() ? nullptr : &*found;
}

const char* flaw_of_connection(const wire::Objects& objects, const wire::OpenFile& file) {
  const wire::Connection* const connection = connection_of(objects, file.object());
  if (connection == nullptr || objects.connections_size() > kMostNetworkSockets) {
    return "connection";
  }
  const auto local = SocketName::from_bytes(connection->local());
  const auto peer = SocketName::from_bytes(connection->peer());
  if (!local || !peer || local->family() != peer->family()) {
    return "names of a connection";
  }
  return are_sound(connection->options()) ? nullptr : "options of a connection";
}

Result<UniqueFd> make_connection(MakeContext& context, const wire::OpenFile& file) {
  const wire::Connection* const connection = connection_of(context.objects(), file.object());
  const int end = MIGRATE_TRY(context.relay_end(file.object()));
  if (connection == nullptr) {
    return fail(make_error(ErrorCode::kCorrupt, "find", "a connection"));
  }
  MIGRATE_TRY(set_options(end, connection->options()));
  static_cast<void>(::fchown(end, connection->owner(), connection->group()));
  if (connection->send_ended()) {
    ::shutdown(end, SHUT_WR);
  }
  if (connection->receive_ended()) {
    ::shutdown(end, SHUT_RD);
  }
  UniqueFd made = MIGRATE_TRY(owned(::fcntl(end, F_DUPFD_CLOEXEC, 0), "duplicate a connection"));
  MIGRATE_TRY(set_flags(made.get(), file.flags()));
  return made;
}

}  // namespace

constinit const Carrier kConnection{
    .kind = wire::OpenFile::CONNECTION,
    .name = "connection",
    .claims_link =
        [](const FindContext& context, const Sighting& seen) {
          return is_of_network(context, seen) && !is_listening(context, seen) &&
                 !is_open_socket(context, seen);
        },
    .find = find_connection,
    .settle = settle_connection,
    .has_state = [](const wire::OpenFile& /*file*/) { return true; },
    .flaw = flaw_of_connection,
    .make = make_connection,
};

}  // namespace migrate::carriers
