#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"
#include "libmigrate/session/worker.h"

namespace migrate {

/// What a child of the daemon needs to serve a connection. References outlive the child's work.
struct PeerService {
  const WorkerContext& context;
  /// Detaches this process from the daemon, as the worker that owns the given descriptor.
  std::function<void(int connection)> become_worker;
};

/// Reads the preamble of a connection from another host and does what it is for: becomes the
/// worker of an offer, hands the connection to the worker of its session, or answers a query.
/// Failures are logged with the peer's name and end the connection. Blocks: up to 5 s for the
/// preamble, then as long as a destination worker lives.
void serve_peer(const PeerService& service, UniqueFd connection, const std::string& peer);

/// Facts of this host, for `hosts` here and on others.
nlohmann::json host_facts(const WorkerContext& context);

/// Facts of another host. Blocks up to `timeout_ms` for each of connecting, proving and answering.
Result<nlohmann::json> query_host(const PeerTrust& trust, const Address& address, int timeout_ms);

}  // namespace migrate
