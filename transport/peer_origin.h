#pragma once

#include <sys/types.h>

#include <optional>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"
#include "transport/address.h"

namespace migrate {

/// Who seems to be at the other end of a connection before anybody has proved anything. It decides
/// who shares places with whom, never who may do what. A value type.
struct PeerOrigin {
  std::string host;  ///< Its address.
  std::string
      group;  ///< "user 1000", "10.0.0.1" or "root of 10.0.0.1"; of IPv6, a network of 64 bits.
  bool is_local = false;  ///< A process of this host, in the caller's network namespace.
  bool is_root = false;   ///< It is root's, or has a port that only root of its host can take.
};

/// Asks the kernel whose sockets the other ends of connections are. Owned by one thread.
class PeerOrigins {
 public:
  /// Errors: kSystem.
  static Result<PeerOrigins> create();

  /// Of a connected TCP socket (borrowed). Where the kernel does not tell owners (INET_DIAG), all
  /// users of this host are told apart by their addresses only. Does not block.
  PeerOrigin of(int fd) const;

 private:
  explicit PeerOrigins(UniqueFd netlink) : netlink_(std::move(netlink)) {}
  std::optional<uid_t> owner(const SocketAddress& peer, const SocketAddress& own) const;

  UniqueFd netlink_;
};

}  // namespace migrate
