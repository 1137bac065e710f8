#include "transport/peer_identity.h"

#include <algorithm>

#include "transport/address.h"

namespace migrate {

std::string PeerIdentity::to_string() const {
  if (!common_name.empty()) {
    return common_name;
  }
  return alternative_names.empty() ? "an unknown host"
                                   : alternative_names.front() + " (unauthenticated)";
}

bool PeerIdentity::same_host(const PeerIdentity& other) const {
  if (!common_name.empty() || !other.common_name.empty()) {
    return common_name == other.common_name;
  }
  return alternative_names == other.alternative_names;
}

bool PeerIdentity::is_host(const std::string& host) const {
  const auto has = [this](const std::string& name) {
    return std::find(alternative_names.begin(), alternative_names.end(), name) !=
           alternative_names.end();
  };
  if (host == common_name || has(host)) {
    return !host.empty();
  }
  const auto addresses = Address{"tcp", host, 0}.resolve();
  return addresses && std::any_of(addresses->begin(), addresses->end(),
                                  [&](const SocketAddress& each) { return has(each.host()); });
}

}  // namespace migrate
