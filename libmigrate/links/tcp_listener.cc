#include "libmigrate/links/tcp_listener.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>

#include <algorithm>
#include <utility>

#include "base/network_namespace.h"
#include "base/thread.h"
#include "libmigrate/links/internal/link_namespace.h"

namespace migrate {
namespace {

Result<LinkListener> make_listener(const TcpListenerNames& names) {
  const int family = names.local.family();
  LinkListener made;
  made.anchor.reset(::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  made.listener.reset(::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!made.anchor.valid() || !made.listener.valid()) {
    return fail(system_error("make", "a socket"));
  }
  const int fd = made.listener.get();
  if (family == AF_INET6) {
    MIGRATE_TRY(set_number(fd, IPPROTO_IPV6, IPV6_V6ONLY, names.only_ipv6 ? 1 : 0));
  }
  MIGRATE_TRY(set_number(fd, SOL_SOCKET, SO_REUSEPORT, names.shares_port ? 1 : 0));
  MIGRATE_TRY(let_bind_anywhere(fd, family, true));
  if (::bind(fd, names.local.address(), names.local.size()) != 0 ||
      ::listen(fd, names.backlog) != 0) {
    return fail(system_error("make", "a socket that listens"));
  }
  MIGRATE_TRY(let_bind_anywhere(fd, family, false));
  return made;
}

Result<std::vector<LinkListener>> listen_in_namespace(std::span<const TcpListenerNames> wanted) {
  MIGRATE_TRY(enter_link_namespace(std::ranges::any_of(
      wanted, [](const TcpListenerNames& names) { return names.local.family() == AF_INET6; })));
  forget_connections_at_once();
  std::vector<LinkListener> made;
  for (const TcpListenerNames& names : wanted) {
    made.push_back(MIGRATE_TRY(make_listener(names)));
  }
  return made;
}

// What repairs a socket may give it a name that another has; it is repaired no more afterwards.
// With a mark, in the network of the process: there it is in the way of nobody who shares names.
Result<UniqueFd> bind_caller(const SocketName& local, const SocketName& peer, int mark) {
  constexpr int kOffWithoutProbe = -1;  // TCP_REPAIR_OFF_NO_WP
  UniqueFd fd(::socket(local.family(), SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.valid()) {
    return fail(system_error("make", "a socket"));
  }
  if (local.family() != peer.family()) {
    return fail(make_error(ErrorCode::kInvalid, "connect", "addresses of two families"));
  }
  MIGRATE_TRY(set_number(fd.get(), IPPROTO_TCP, TCP_REPAIR, 1));
  if (local.family() == AF_INET6) {
    MIGRATE_TRY(set_number(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, 0));
  }
  if (mark != 0) {
    MIGRATE_TRY(send_marked(fd.get(), local.family(), mark));
  }
  MIGRATE_TRY(let_bind_anywhere(fd.get(), local.family(), true));
  if (::bind(fd.get(), local.address(), local.size()) != 0) {
    return fail(system_error("bind", "a socket to the name of a peer"));
  }
  MIGRATE_TRY(let_bind_anywhere(fd.get(), local.family(), false));
  MIGRATE_TRY(set_number(fd.get(), IPPROTO_TCP, TCP_REPAIR, kOffWithoutProbe));
  if (mark != 0) {
    MIGRATE_TRY(set_number(fd.get(), SOL_SOCKET, SO_REUSEADDR, 1));
  }
  return fd;
}

}  // namespace

Result<std::vector<LinkListener>> make_tcp_listeners(std::span<const TcpListenerNames> wanted) {
  std::vector<LinkListener> made;
  if (!wanted.empty()) {
    MIGRATE_TRY(run_in_thread([&]() -> Result<void> {
      made = MIGRATE_TRY(listen_in_namespace(wanted));
      return {};
    }));
  }
  return made;
}

Result<UniqueFd> make_caller(int anchor, const SocketName& local, const SocketName& peer) {
  const UniqueFd space = MIGRATE_TRY(network_namespace_of(anchor));
  int mark = 0;
  socklen_t size = sizeof(mark);
  if (::getsockopt(anchor, SOL_SOCKET, SO_MARK, &mark, &size) != 0) {
    return fail(system_error("read the mark of", "a socket"));
  }
  UniqueFd made;
  MIGRATE_TRY(run_in_network_namespace(space.get(), [&]() -> Result<void> {
    made = MIGRATE_TRY(bind_caller(local, peer, mark));
    return {};
  }));
  return made;
}

CallState call_state(int caller) {
  const auto info = read_tcp_info(caller);
  if (!info) {
    return CallState::kFailed;
  }
  if (info->state() == TCP_SYN_SENT) {
    return CallState::kUnderWay;
  }
  if (info->state() != TCP_CLOSE) {
    return CallState::kConnected;
  }
  // One that was never connected polls as hung up, too; an error tells that it has tried.
  pollfd polled{caller, 0, 0};
  return ::poll(&polled, 1, 0) > 0 && (polled.revents & POLLERR) != 0 ? CallState::kFailed
                                                                      : CallState::kIdle;
}

Result<std::uint32_t> backlog_of(int listener) {
  const TcpInfo info = MIGRATE_TRY(read_tcp_info(listener));
  return info.first.tcpi_sacked;  // A listener has no other use for it.
}

}  // namespace migrate
