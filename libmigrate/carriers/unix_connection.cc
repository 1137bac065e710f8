// A Unix domain stream socket whose other end is somebody else's: the real socket stays with the
// deputy at home, and there is a pair with the same names, one of which the process has and the
// other the relay.
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <algorithm>
#include <string>
#include <utility>

#include "libmigrate/carriers/internal/network_socket.h"
#include "libmigrate/carriers/internal/relayed.h"
#include "libmigrate/carriers/internal/socket_options.h"
#include "libmigrate/carriers/internal/table.h"
#include "libmigrate/carriers/internal/tools.h"
#include "libmigrate/links/unix_pair.h"
#include "libmigrate/proc/proc_text.h"
#include "libmigrate/proc/unix_socket.h"

namespace migrate::carriers {
namespace {

// What keeps it from being carried; empty: nothing.
std::string reason_against_connection(FindContext& context, const Sighting& seen, int fd) {
  if (number_of(fd, SOL_SOCKET, SO_TYPE) != SOCK_STREAM) {
    return "its other end is outside, and it is no stream (SOCK_STREAM)";
  }
  if (number_field(seen.details, "scm_fds:") != 0) {
    return "descriptors are under way in it";
  }
  for (const int name : {SO_PASSCRED, SO_PASSSEC, kPassPidfd}) {
    if (number_of(fd, SOL_SOCKET, name) > 0) {
      return "it wants to know of each message who sent it (SO_PASSCRED, SO_PASSSEC, SO_PASSPIDFD)";
    }
  }
  if (context.objects().unix_connections_size() >= kMostNetworkSockets) {
    return "there are too many of them";
  }
  return {};
}

// All that is to be said of the socket itself.
Result<wire::UnixConnection> describe(int fd, std::uint32_t shutdown) {
  constexpr std::uint32_t kSendsNoMore = 2;
  wire::UnixConnection connection;
  connection.set_local(MIGRATE_TRY(unix_name_of(fd, false)));
  connection.set_peer(MIGRATE_TRY(unix_name_of(fd, true)));
  connection.set_send_ended((shutdown & kSendsNoMore) != 0);
  *connection.mutable_options() = MIGRATE_TRY(changed_options(fd, SOCK_STREAM));
  struct stat status {};
  if (::fstat(fd, &status) == 0) {
    connection.set_owner(status.st_uid);
    connection.set_group(status.st_gid);
  }
  ucred peer{};
  socklen_t size = sizeof(peer);
  if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) {
    return fail(system_error("ask who is connected to", "a Unix domain socket"));
  }
  connection.set_peer_user(peer.uid);
  connection.set_peer_group(peer.gid);
  return connection;
}

bool find_unix_connection(FindContext& context, const Sighting& seen, wire::OpenFile& file) {
  const UniqueFd fd = context.fetch(seen.number);
  const auto socket = read_unix_socket(inode_in(seen.link), fd.get());
  if (!fd.valid() || !socket) {
    return context.refuse("SOCKET", seen,
                          socket ? "it cannot be looked at" : socket.error().message());
  }
  if (context.is_guest() && !is_known_relay(context, seen)) {
    return context.refuse("SOCKET_ABROAD", seen);
  }
  if (const std::string reason = reason_against_connection(context, seen, fd.get());
      !reason.empty()) {
    return context.refuse("SOCKET", seen, reason);
  }
  auto connection = describe(fd.get(), socket->shutdown);
  if (!connection) {
    return context.refuse("SOCKET", seen, connection.error().message());
  }
  connection->set_stream(context.known_stream(inode_in(seen.link)).value_or(0));
  file.set_position(static_cast<std::uint64_t>(context.objects().unix_connections_size()));
  file.mutable_identity()->set_path(seen.link);
  *context.objects().add_unix_connections() = std::move(*connection);
  return true;
}

void settle_unix_connection(FindContext& context, std::uint32_t number, wire::OpenFile& file) {
  wire::UnixConnection& connection =
      *context.objects().mutable_unix_connections(static_cast<int>(file.position()));
  file.set_position(0);
  if (connection.stream() == 0) {
    connection.set_stream(context.stream_to(number, file.identity().path()));
  }
  file.set_object(connection.stream());
}

const wire::UnixConnection* unix_connection_of(const wire::Objects& objects, std::uint64_t stream) {
  const auto found =
      std::ranges::find(objects.unix_connections(), stream, &wire::UnixConnection::stream);
  return found == objects.unix_connections().end() ? nullptr : &*found;
}

const char* flaw_of_unix_connection(const wire::Objects& objects, const wire::OpenFile& file) {
  const auto* const connection = unix_connection_of(objects, file.object());
  if (connection == nullptr || objects.unix_connections_size() > kMostNetworkSockets) {
    return "unix_connection";
  }
  if (connection->local().size() > kMostUnixNameBytes ||
      connection->peer().size() > kMostUnixNameBytes) {
    return "names of a unix_connection";
  }
  constexpr std::uint32_t kNobody = ~0U;  // By which setresuid(2) would leave things as they are.
  if (connection->peer_user() == kNobody || connection->peer_group() == kNobody) {
    return "peer of a unix_connection";
  }
  return are_sound(connection->options()) ? nullptr : "options of a unix_connection";
}

Result<UniqueFd> make_unix_connection(MakeContext& context, const wire::OpenFile& file) {
  const auto* const connection = unix_connection_of(context.objects(), file.object());
  const int end = MIGRATE_TRY(context.relay_end(file.object()));
  if (connection == nullptr) {
    return fail(make_error(ErrorCode::kCorrupt, "find", "a connection of Unix domain sockets"));
  }
  MIGRATE_TRY(set_options(end, connection->options()));
  static_cast<void>(::fchown(end, connection->owner(), connection->group()));
  if (connection->send_ended()) {
    ::shutdown(end, SHUT_WR);
  }
  UniqueFd made = MIGRATE_TRY(owned(::fcntl(end, F_DUPFD_CLOEXEC, 0), "duplicate a connection"));
  MIGRATE_TRY(set_flags(made.get(), file.flags()));
  return made;
}

}  // namespace

bool is_unix_connection(const FindContext& context, const Sighting& seen) {
  if (is_known_relay(context, seen)) {
    return true;
  }
  const UniqueFd fd = context.fetch(seen.number);
  const auto socket = read_unix_socket(inode_in(seen.link), fd.get());
  return fd.valid() && socket && !socket->listens && socket->peer && *socket->peer != 0 &&
         !context.has_socket(*socket->peer);
}

constinit const Carrier kUnixConnection{
    .kind = wire::OpenFile::UNIX_CONNECTION,
    .name = "Unix domain connection",
    .claims_link =
        [](const FindContext& context, const Sighting& seen) {
          return seen.link.starts_with("socket:[") && !is_of_network(context, seen) &&
                 is_unix_connection(context, seen);
        },
    .find = find_unix_connection,
    .settle = settle_unix_connection,
    .has_state = [](const wire::OpenFile& /*file*/) { return true; },
    .flaw = flaw_of_unix_connection,
    .make = make_unix_connection,
};

}  // namespace migrate::carriers
