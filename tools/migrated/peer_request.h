#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"
#include "libmigrate/guest/guest_worker.h"
#include "libmigrate/home/home_worker.h"
#include "libmigrate/host/worker_context.h"
#include "libmigrate/move/check.h"
#include "libmigrate/requests/requests.h"
#include "libmigrate/takeover/adoption.h"
#include "tools/migrated/peer_log.h"
#include "tools/migrated/peer_queue.h"

namespace migrate {

/// What a child of the daemon needs to serve a connection. References outlive the child's work.
struct PeerService {
  const WorkerContext& context;
  const PeerLog& log;
  /// Detaches this process from the daemon, as the worker that owns the given descriptor.
  std::function<void(int connection)> become_worker;
};

/// Does what a connection from another host is for, by its preamble: becomes the worker of an
/// offer, hands the connection to the worker of its session, answers a query, or a question about a
/// process whose home this is. Failures are
/// logged with the peer's name and end the connection. True if the peer has proved who it is, as
/// far as the kind of trust goes. Blocks: up to 5 s (1 s if it must hurry) for what it has to
/// prove, then as long as a destination worker lives.
bool serve_peer(const PeerService& service, PeerQueue::Newcomer newcomer);

/// Facts of this host, for `hosts` here and on others.
nlohmann::json host_facts(const WorkerContext& context);

/// Facts of another host. Blocks up to `timeout_ms` for each of connecting, proving and answering.
Result<nlohmann::json> query_host(const PeerTrust& trust, const Address& address, int timeout_ms);

}  // namespace migrate
