#pragma once

#include <cstdlib>
#include <memory>
#include <string>
#include <utility>

#include "transport/rdma.h"

namespace migrate::test {

/// An address with RDMA of this machine, from MIGRATE_RDMA_ADDRESS; tests/vm sets it.
inline std::string rdma_address() {
  const char* const address = std::getenv("MIGRATE_RDMA_ADDRESS");
  return address != nullptr ? address : "192.168.77.1";
}

inline constexpr int kConnectMs = 10000;

/// Where a listener of this machine listens.
inline Address address_of(const PageListener& listener) {
  return {.scheme = "rdma", .host = rdma_address(), .port = listener.port()};
}

/// A session that someone listens for.
struct Meeting {
  static SessionId session() { return {std::byte{1}, std::byte{2}}; }
  static PageToken token() { return {std::byte{3}, std::byte{4}}; }

  std::unique_ptr<PageListener> listener =
      std::move(listen_rdma(rdma_address(), session(), token())).value();

  static PageGreeting greeting(Purpose purpose) { return {purpose, session(), token()}; }
};

/// Both ends of a new connection, the connecting one first.
std::pair<std::unique_ptr<OneSidedChannel>, std::unique_ptr<OneSidedChannel>> connect_pair(
    Meeting& meeting, Purpose purpose, const RdmaOptions& options = {});

}  // namespace migrate::test
