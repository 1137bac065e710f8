#pragma once

#include <cstdint>
#include <optional>
#include <utility>

#include "base/result.h"
#include "base/unique_fd.h"
#include "libmigrate/links/tcp_socket.h"

struct nlmsghdr;

namespace migrate {

/// Sets up the network namespace that the calling thread is in, by rtnetlink. None of its calls
/// blocks; errors of all: kSystem.
class NetworkSetup {
 public:
  static constexpr unsigned kLoopback = 1;  ///< The first interface of every network namespace.
  static constexpr std::uint32_t kLocalTable = 255;
  static constexpr std::uint32_t kMainTable = 254;

  static Result<NetworkSetup> open();

  /// `most_bytes` of a packet; 0: as it is.
  Result<void> raise(unsigned interface, std::uint32_t most_bytes = 0) const;
  /// Where `table` says so, every address is one of this namespace.
  Result<void> own_all_addresses(int family, std::uint32_t table) const;
  /// Without the routes that the kernel adds to that otherwise.
  Result<void> add_address(unsigned interface, const SocketName& address, unsigned prefix) const;

  struct Route {
    SocketName to;        ///< Its first `prefix` bits.
    unsigned prefix = 0;  ///< 0: to wherever no other route leads.
    SocketName from;      ///< Who sends without having chosen.
    unsigned interface = kLoopback;
    std::uint32_t table = kMainTable;
  };
  Result<void> add_route(const Route& route) const;

  /// Which table counts, of the rules of the least `priority` whose conditions hold.
  struct Rule {
    int family = 0;
    std::uint32_t priority = 0;
    std::uint32_t table = kMainTable;
    std::uint32_t mark = 0;    ///< If not 0: of packets with SO_MARK of this.
    bool is_outgoing = false;  ///< Of packets of sockets in here.
  };
  Result<void> add_rule(const Rule& rule) const;
  Result<void> remove_rule(const Rule& rule) const;

 private:
  explicit NetworkSetup(UniqueFd netlink) : netlink_(std::move(netlink)) {}
  Result<void> ask(nlmsghdr* header) const;
  Result<void> change_rule(unsigned kind, unsigned flags, const Rule& rule) const;

  UniqueFd netlink_;
};

}  // namespace migrate
