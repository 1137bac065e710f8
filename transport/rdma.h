#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "transport/address.h"
#include "transport/page_transport.h"
#include "transport/preamble.h"

namespace migrate {

/// RDMA as a transport of pages: the one way for what is above this folder. Connections cannot be
/// handed to another process, so that each worker listens for itself. A build without its
/// libraries has it, too, and says what is missing.
extern const PageTransport kRdma;

// What it is made of.

struct RdmaOptions {
  /// Of a connecting side: the numeric address of this host to connect from, which chooses the
  /// device; empty: the one that routes lead to.
  std::string source_host = {};
  /// Memory that the peer may write its messages into, pinned as long as the channel lives; a
  /// multiple of the page size, at least 64 KiB. A message of at most a quarter of it is received
  /// without a copy.
  std::size_t landing_bytes = std::size_t{2} << 20U;
  /// How long send() polls for room before it sleeps.
  std::uint32_t spin_us = 50;
};

/// As PageTransport::problem, ports and listen. All channels are OneSidedChannels.
std::string rdma_problem(const std::string& host);
Result<std::vector<PagePort>> rdma_ports();
Result<std::unique_ptr<PageListener>> listen_rdma(const std::string& host, const SessionId& session,
                                                  const PageToken& token);

/// Connects to a listener at `address` (rdma://ADDRESS:PORT). Blocks up to `timeout_ms` for each of
/// the four steps of connecting. Errors: as PageTransport::connect, kInvalid (options).
Result<std::unique_ptr<OneSidedChannel>> connect_rdma(const Address& address,
                                                      const PageGreeting& greeting,
                                                      const RdmaOptions& options, int timeout_ms);

}  // namespace migrate
