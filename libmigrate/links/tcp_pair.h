#pragma once

#include <memory>
#include <span>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "libmigrate/links/tcp_socket.h"
#include "libmigrate/links/tcp_watch.h"

namespace migrate {

/// A connection as a process has it: the names are what getsockname(2) and getpeername(2) give.
struct TcpPairNames {
  SocketName local;
  SocketName peer;
  bool only_ipv6 = false;  ///< IPV6_V6ONLY, which cannot be set later.
};

/// Two TCP sockets that are connected to each other, in a network namespace that lives as long as
/// they do: `end` has the names that were asked for, `mate` the same the other way round. Of
/// neither a packet ever leaves that namespace.
struct TcpPair {
  UniqueFd end;
  UniqueFd mate;
  std::shared_ptr<TcpWatch> watch;  ///< Of its namespace.
};

/// Makes pairs without a packet (TCP_REPAIR), in namespaces of their own: one, and more if two
/// pairs would have the same names there. Needs CAP_SYS_ADMIN and CAP_NET_ADMIN. Blocks for some
/// milliseconds. Errors: kInvalid (too many have the same names), kSystem.
Result<std::vector<TcpPair>> make_tcp_pairs(std::span<const TcpPairNames> wanted);

}  // namespace migrate
