#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "libmigrate/links/tcp_socket.h"
#include "libmigrate/links/tcp_watch.h"

namespace migrate {

/// A listener as a process has it.
struct TcpListenerNames {
  SocketName local;
  bool only_ipv6 = false;    ///< IPV6_V6ONLY
  bool shares_port = false;  ///< SO_REUSEPORT
  int backlog = 0;
};

/// A socket that listens in a network namespace that nothing reaches, and one that keeps hold of
/// that namespace, from which others connect to it.
struct LinkListener {
  UniqueFd listener;
  UniqueFd anchor;
};

/// Makes them in one namespace, which lives as long as some of its sockets. Needs CAP_SYS_ADMIN and
/// CAP_NET_ADMIN. Blocks for some milliseconds. Errors: kSystem.
Result<std::vector<LinkListener>> make_tcp_listeners(std::span<const TcpListenerNames> wanted);

/// A socket beside `anchor`, and with its mark (SO_MARK), that has the name `local`, whoever else
/// has it there, and is to connect to `peer`. Blocks for less than a millisecond. Errors: kSystem.
Result<UniqueFd> make_caller(int anchor, const SocketName& local, const SocketName& peer);

/// How far such a socket has come.
enum class CallState : std::uint8_t { kIdle, kUnderWay, kConnected, kFailed };
CallState call_state(int caller);

/// The backlog of a socket that listens. Errors: kSystem.
Result<std::uint32_t> backlog_of(int listener);

}  // namespace migrate
