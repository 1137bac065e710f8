#pragma once

#include <string>
#include <vector>

#include "base/result.h"

namespace migrate {

/// Who is at the other end of a connection between hosts.
struct PeerIdentity {
  /// The name that the peer has proved; empty if nothing was proved.
  std::string common_name = {};
  /// Host names and numeric addresses. Of an unauthenticated peer, the address it connected from.
  std::vector<std::string> alternative_names = {};

  /// For people: the name proved, or the address with "unauthenticated".
  std::string to_string() const;
  /// Whether both are the same host: the same proved name, else the same addresses.
  bool same_host(const PeerIdentity& other) const;
  /// Whether `host`, a host name or numeric address, is one of its names; a name also if it
  /// resolves to one of its addresses. Blocks on the resolver.
  bool is_host(const std::string& host) const;
};

}  // namespace migrate
