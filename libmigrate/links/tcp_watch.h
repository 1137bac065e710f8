#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <set>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "libmigrate/links/tcp_socket.h"

struct nlmsghdr;

namespace migrate {

/// Looks at connections whose sockets this process does not have, in one network namespace, by
/// NETLINK_SOCK_DIAG. One thread.
class TcpWatch {
 public:
  /// In the network namespace of the calling thread. Errors: kSystem.
  static Result<TcpWatch> open();
  /// In that of `socket`, for which the caller needs CAP_NET_ADMIN and CAP_SYS_ADMIN. Errors:
  /// kSystem.
  static Result<TcpWatch> open_beside(int socket);

  /// What is known of an end that some process has open, or that waits for one to accept it.
  struct Seen {
    std::uint64_t inode = 0;  ///< 0: it waits.
    std::uint64_t taken = 0;  ///< As TcpCounts; the end that was received may count as a byte.
    std::uint64_t given = 0;
    std::uint64_t unread = 0;
    std::uint8_t state = 0;
  };
  /// The end with these names. Nothing: nobody has it open, or its connection is over. Errors:
  /// kSystem. Does not block.
  Result<std::optional<Seen>> look(const SocketName& local, const SocketName& peer);
  /// Whether some process has a socket open that listens at `local`. Errors: kSystem. Does not
  /// block.
  Result<bool> is_listened_at(const SocketName& local);
  /// Whether some process has a socket of UDP to which comes what `peer` sends to `local`; no where
  /// the kernel cannot tell (CONFIG_INET_UDP_DIAG). Errors: kSystem. Does not block.
  Result<bool> takes_datagrams(const SocketName& local, const SocketName& peer);

  /// The names of all sockets of UDP there that have one, in ascending order. Errors: kSystem (also
  /// where the kernel cannot tell). Does not block.
  Result<std::set<SocketName>> names_of_datagrams();

  /// A socket of TCP there that listens.
  struct Listener {
    std::uint64_t inode = 0;
    SocketName local;
    bool only_ipv6 = false;
    std::uint32_t backlog = 0;
  };
  /// All of them, but for those of one interface (SO_BINDTODEVICE), which mean nothing elsewhere.
  /// Errors: kSystem. Does not block.
  Result<std::vector<Listener>> listeners();

 private:
  using Take = std::function<void(const nlmsghdr&)>;
  Result<void> list(int protocol, int family, std::uint32_t states, const Take& take);
  using AnswerBuffer = std::array<std::byte, 4096>;
  Result<const nlmsghdr*> ask(int protocol, const SocketName& source, const SocketName& destination,
                              AnswerBuffer& buffer);

  explicit TcpWatch(UniqueFd netlink) : netlink_(std::move(netlink)) {}

  UniqueFd netlink_;
  std::uint32_t sequence_ = 0;
};

}  // namespace migrate
