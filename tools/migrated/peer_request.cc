#include "tools/migrated/peer_request.h"

#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "libmigrate/registry/mailbox.h"
#include "libmigrate/registry/registry.h"
#include "libmigrate/session/json_member.h"
#include "transport/preamble.h"
#include "transport/rdma.h"

namespace migrate {
namespace {

constexpr int kPreambleTimeoutMs = 5000;
constexpr int kHandshakeTimeoutMs = 5000;
constexpr std::size_t kMaxFactsBytes = std::size_t{64} << 10U;

Result<void> answer_query(const WorkerContext& context, Channel& channel) {
  const std::string facts =
      host_facts(context).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  MIGRATE_TRY(channel.send_one(std::as_bytes(std::span(facts))));
  // Until the peer closes, so that no reset overtakes the answer.
  (void)channel.receive(0, kPreambleTimeoutMs);
  return {};
}

/// Does what a connection that begins something is for, once the peer has proved who it is.
Result<void> serve_newcomer(const PeerService& service, UniqueFd connection,
                            const Preamble& preamble) {
  PeerTrust::Peer peer = MIGRATE_TRY(
      service.context.trust.accept(std::move(connection), preamble, kHandshakeTimeoutMs));
  if (preamble.purpose == Purpose::kQuery) {
    return answer_query(service.context, *peer.channel);
  }
  log::info("{} offers a process, session {}", peer.identity.to_string(), to_hex(preamble.session));
  run_destination_worker(service.context, std::move(peer), preamble, service.become_worker);
  return {};
}

void pass_on(const WorkerContext& context, UniqueFd connection, const Preamble& preamble,
             const std::string& peer) {
  const std::string session = to_hex(preamble.session);
  const auto bytes = encode(preamble);
  const Result<bool> handed =
      hand_to_worker(context.state_directory, session, connection.get(), bytes);
  if (!handed) {
    log::warn("{}: connection for session {} lost: {}", peer, session, handed.error().message());
  } else if (!*handed && preamble.purpose == Purpose::kResume) {
    answer_resume(context, std::move(connection), preamble);
  } else if (!*handed && preamble.purpose == Purpose::kHome) {
    answer_resident(context, std::move(connection), preamble);
  } else if (!*handed) {
    log::warn("{}: closed a connection for session {}, which has no worker here", peer, session);
  }
}

/// Where workers listen and why that is in vain, if it is; the ports of this host's devices or why
/// none can be told.
nlohmann::json rdma_facts(const WorkerContext& context) {
  nlohmann::json facts = {{"listen", context.rdma_host}};
  if (!context.rdma_host.empty()) {
    if (const std::string problem = rdma_listen_problem(context.rdma_host); !problem.empty()) {
      facts["problem"] = problem;
    }
  }
  const auto ports = rdma_ports();
  if (!ports) {
    facts["error"] = ports.error().message();
    return facts;
  }
  facts["ports"] = nlohmann::json::array();
  for (const RdmaPort& port : *ports) {
    facts["ports"].push_back({{"device", port.device},
                              {"port", port.number},
                              {"transport", port.transport},
                              {"state", port.state},
                              {"mtu_bytes", port.mtu_bytes},
                              {"addresses", port.addresses}});
  }
  return facts;
}

}  // namespace

void serve_peer(const PeerService& service, UniqueFd connection, const std::string& peer) {
  const Result<Preamble> preamble = receive_preamble(connection.get(), kPreambleTimeoutMs);
  if (!preamble) {
    log::warn("closed a connection from {}: {}", peer, preamble.error().message());
    if (preamble.error().code == ErrorCode::kUnsupported) {
      refuse_version(connection.get());
    }
    return;
  }
  switch (preamble->purpose) {
    case Purpose::kOffer:
    case Purpose::kQuery:
      if (const Result<void> served = serve_newcomer(service, std::move(connection), *preamble);
          !served) {
        log::warn("refused {}: {}", peer, served.error().message());
      }
      break;
    case Purpose::kUrgent:
    case Purpose::kBulk:
    case Purpose::kHome:
    case Purpose::kCommand:
    case Purpose::kResume:
      pass_on(service.context, std::move(connection), *preamble, peer);
      break;
  }
}

nlohmann::json host_facts(const WorkerContext& context) {
  nlohmann::json facts = {{"host", context.host_name},
                          {"address", context.own_address.to_string()},
                          {"version", MIGRATE_VERSION},
                          {"protocol", kProtocolVersion},
                          {"trust", context.trust.name()}};
  utsname system = {};
  if (uname(&system) == 0) {
    facts["kernel"] = system.release;
    facts["architecture"] = system.machine;
  }
  struct sysinfo memory = {};
  if (sysinfo(&memory) == 0) {
    facts["memory_bytes"] = std::uint64_t{memory.totalram} * memory.mem_unit;
    facts["memory_available_bytes"] =
        (std::uint64_t{memory.freeram} + memory.bufferram) * memory.mem_unit;
  }
  facts["rdma"] = rdma_facts(context);
  facts["cpus"] = sysconf(_SC_NPROCESSORS_ONLN);
  if (Result<Registry> registry = Registry::open(context.state_directory)) {
    if (const auto rows = registry->list(true)) {
      facts["processes"] = rows->size();
    }
  }
  return facts;
}

Result<nlohmann::json> query_host(const PeerTrust& trust, const Address& address, int timeout_ms) {
  Preamble preamble;
  preamble.purpose = Purpose::kQuery;
  const PeerTrust::Peer peer = MIGRATE_TRY(trust.connect(address, preamble, timeout_ms));
  const std::span<const std::byte> answer = MIGRATE_TRY(peer.channel->receive(0, timeout_ms));
  const auto* text = reinterpret_cast<const char*>(answer.data());  // bytes that are to be JSON
  nlohmann::json facts = parse_object({text, std::min<std::size_t>(answer.size(), kMaxFactsBytes)});
  if (!facts.is_object()) {
    return fail(make_error(ErrorCode::kCorrupt, "read a host's answer", address.to_string(),
                           "does it run the same version of migrated?"));
  }
  return facts;
}

}  // namespace migrate
