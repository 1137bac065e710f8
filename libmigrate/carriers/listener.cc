// A socket of TCP that listens: the real one stays with the deputy at home, and there is one of the
// same name, to which the relay connects in the name of those who connect to the real one.
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "libmigrate/carriers/internal/network_socket.h"
#include "libmigrate/carriers/internal/relayed.h"
#include "libmigrate/carriers/internal/socket_options.h"
#include "libmigrate/carriers/internal/table.h"
#include "libmigrate/carriers/internal/tools.h"
#include "libmigrate/links/tcp_listener.h"

namespace migrate::carriers {
namespace {

Result<wire::Listener> describe_listener(int fd) {
  wire::Listener listener;
  const SocketName name = MIGRATE_TRY(SocketName::of(fd));
  if (name.is_link_local()) {
    return fail(make_error(ErrorCode::kUnsupported, "carry", "a link-local address"));
  }
  listener.set_name(name.to_bytes());
  listener.set_backlog(MIGRATE_TRY(backlog_of(fd)));
  listener.set_only_ipv6(name.family() == AF_INET6 &&
                         number_of(fd, IPPROTO_IPV6, IPV6_V6ONLY) == 1);
  listener.set_shares_port(number_of(fd, SOL_SOCKET, SO_REUSEPORT) == 1);
  *listener.mutable_options() =
      MIGRATE_TRY(changed_tcp_options(fd, number_of(fd, SOL_SOCKET, SO_DOMAIN)));
  struct stat status {};
  if (::fstat(fd, &status) == 0) {
    listener.set_owner(status.st_uid);
    listener.set_group(status.st_gid);
  }
  return listener;
}

bool find_listener(FindContext& context, const Sighting& seen, wire::OpenFile& file) {
  const UniqueFd fd = context.fetch(seen.number);
  if (!find_tcp_socket(context, seen, fd)) {
    return false;
  }
  if (context.is_guest() && !is_known_relay(context, seen)) {
    return context.refuse("SOCKET_ABROAD", seen);
  }
  auto listener = describe_listener(fd.get());
  if (!listener) {
    return context.refuse("SOCKET_SETTING", seen, listener.error().message());
  }
  if (context.objects().listeners_size() >= kMostNetworkSockets) {
    return context.refuse("SOCKET_KIND", seen, "too many listeners");
  }
  listener->set_stream(context.known_stream(inode_in(seen.link)).value_or(0));
  file.set_position(static_cast<std::uint64_t>(context.objects().listeners_size()));
  file.mutable_identity()->set_path(seen.link);
  *context.objects().add_listeners() = std::move(*listener);
  return true;
}

void settle_listener(FindContext& context, std::uint32_t number, wire::OpenFile& file) {
  wire::Listener& listener =
      *context.objects().mutable_listeners(static_cast<int>(file.position()));
  file.set_position(0);
  if (listener.stream() == 0) {
    listener.set_stream(context.stream_to(number, file.identity().path()));
  }
  file.set_object(listener.stream());
}

const wire::Listener* listener_of(const wire::Objects& objects, std::uint64_t stream) {
  const auto found = std::ranges::find(objects.listeners(), stream, &wire::Listener::stream);
  return found == objects.listeners().end() ? nullptr : &*found;
}

const char* flaw_of_listener(const wire::Objects& objects, const wire::OpenFile& file) {
  const wire::Listener* const listener = listener_of(objects, file.object());
  if (listener == nullptr || objects.listeners_size() > kMostNetworkSockets) {
    return "listener";
  }
  if (!SocketName::from_bytes(listener->name()) ||
      listener->backlog() > static_cast<std::uint32_t>(std::numeric_limits<int>::max())) {
    return "name of a listener";
  }
  return are_sound(listener->options()) ? nullptr : "options of a listener";
}

Result<UniqueFd> make_listener_file(MakeContext& context, const wire::OpenFile& file) {
  const wire::Listener* const listener = listener_of(context.objects(), file.object());
  const int end = MIGRATE_TRY(context.relay_end(file.object()));
  if (listener == nullptr) {
    return fail(make_error(ErrorCode::kCorrupt, "find", "a listener"));
  }
  MIGRATE_TRY(set_options(end, listener->options()));
  static_cast<void>(::fchown(end, listener->owner(), listener->group()));
  UniqueFd made = MIGRATE_TRY(owned(::fcntl(end, F_DUPFD_CLOEXEC, 0), "duplicate a listener"));
  MIGRATE_TRY(set_flags(made.get(), file.flags()));
  return made;
}

}  // namespace

constinit const Carrier kListener{
    .kind = wire::OpenFile::LISTENER,
    .name = "listener",
    .claims_link =
        [](const FindContext& context, const Sighting& seen) {
          return is_of_network(context, seen) && is_listening(context, seen);
        },
    .find = find_listener,
    .settle = settle_listener,
    .has_state = [](const wire::OpenFile& /*file*/) { return true; },
    .flaw = flaw_of_listener,
    .make = make_listener_file,
};

}  // namespace migrate::carriers
