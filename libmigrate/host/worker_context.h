#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "libmigrate/groups/group_rules.h"
#include "libmigrate/host/stop_points.h"
#include "libmigrate/requests/link_rules.h"
#include "libmigrate/requests/policy_rules.h"
#include "libmigrate/rules/host_policy.h"
#include "transport/address.h"
#include "transport/page_transport.h"
#include "transport/peer_trust.h"

namespace migrate {

/// Where the workers of a host listen for pages.
struct PageAddress {
  const PageTransport* transport;
  std::string host;
};

/// What the daemon tells each worker about its host.
struct WorkerContext {
  std::string state_directory;
  std::string socket_path;
  std::string host_name;
  Address own_address;  ///< As others reach us.
  /// Beside the daemon's connections: one at most by each transport, the best first.
  std::vector<PageAddress> page_addresses;
  PeerTrust trust;  ///< How hosts know each other.
  std::uint32_t spin_us = 0;
  std::uint32_t end_waiting_s = 0;  ///< After so long a process that waits for pages is ended.
  StopPoints stops;
  std::string trace_directory;      ///< Where it is noted when pages came; empty: nowhere.
  HostPolicy policy;                ///< Whose processes this host takes.
  GroupPolicy groups;               ///< Into which control groups.
  PolicyRules travel;               ///< What of a process that leaves comes how.
  LinkRules links;                  ///< Which links of it are made.
  std::uint32_t max_sessions = 0;   ///< Processes of other hosts that it takes at a time.
  std::uint64_t reserve_bytes = 0;  ///< Memory that they must leave free.
  bool overcommits = false;         ///< Theirs may be more than there is.
  bool gives_home_network = false;  ///< It can (Gateway::try_out()); else that is tried each time.
  bool only_home_network = false;   ///< Nothing of theirs may use this host's own.
  /// Most that is pushed to each process that went away, 0: as fast as can be.
  std::uint64_t push_bytes_per_second = 0;

  /// Where workers listen by the transport of that word; null: nowhere.
  const PageAddress* page_address(std::string_view word) const {
    const auto found = std::ranges::find_if(
        page_addresses, [&](const PageAddress& own) { return own.transport->word == word; });
    return found == page_addresses.end() ? nullptr : &*found;
  }
};

}  // namespace migrate
