#include "tools/migrated/peer_request.h"

#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "libmigrate/host/mailbox_path.h"
#include "libmigrate/requests/json_member.h"
#include "libmigrate/state/drain_mark.h"
#include "libmigrate/state/registry.h"
#include "tools/migrated/ask_home.h"
#include "transport/page_transport.h"
#include "transport/preamble.h"

namespace migrate {
namespace {

constexpr int kHandshakeTimeoutMs = 5000;
constexpr int kHurriedHandshakeMs = 1000;
constexpr int kPartingTimeoutMs = 1000;
constexpr std::size_t kMaxFactsBytes = std::size_t{64} << 10U;

Result<void> answer_query(const WorkerContext& context, Channel& channel) {
  const std::string facts = json_text(host_facts(context));
  MIGRATE_TRY(channel.send_one(std::as_bytes(std::span(facts))));
  // Until the peer closes, so that no reset overtakes the answer.
  (void)channel.receive(0, kPartingTimeoutMs);
  return {};
}

/// Does what a connection that begins something is for, once the peer has proved who it is.
Result<void> serve_newcomer(const PeerService& service, PeerQueue::Newcomer& newcomer,
                            const Preamble& preamble) {
  PeerTrust::Peer peer = MIGRATE_TRY(service.context.trust.accept(
      std::move(newcomer.connection), preamble,
      newcomer.must_hurry ? kHurriedHandshakeMs : kHandshakeTimeoutMs));
  if (preamble.purpose == Purpose::kQuery) {
    return answer_query(service.context, *peer.channel);
  }
  if (preamble.purpose == Purpose::kAsk) {
    answer_host(service.context, std::move(peer));
    return {};
  }
  log::info("{} offers a process, session {}", peer.identity.to_string(), to_hex(preamble.session));
  run_destination_worker(service.context, std::move(peer), preamble, service.become_worker);
  return {};
}

void pass_on(const PeerService& service, PeerQueue::Newcomer& newcomer, const Preamble& preamble) {
  const WorkerContext& context = service.context;
  const std::string session = to_hex(preamble.session);
  const Result<bool> handed = hand_to_worker(context.state_directory, session,
                                             newcomer.connection.get(), newcomer.preamble);
  if (!handed) {
    log::warn(service.log.no_worker, "{}: connection for session {} lost: {}", newcomer.name,
              session, handed.error().message());
  } else if (!*handed && preamble.purpose == Purpose::kResume) {
    answer_resume(context, std::move(newcomer.connection), preamble);
  } else if (!*handed && preamble.purpose == Purpose::kHome) {
    answer_guest(context, std::move(newcomer.connection), preamble);
  } else if (!*handed) {
    log::warn(service.log.no_worker,
              "{}: closed a connection for session {}, which has no worker "
              "here",
              newcomer.name, session);
  }
}

/// Where workers listen and why that is in vain, if it is; the ports of this host's devices or why
/// none can be told.
nlohmann::json facts_of(const PageTransport& transport, const WorkerContext& context) {
  const PageAddress* const own = context.page_address(transport.word);
  nlohmann::json facts = {{"listen", own != nullptr ? own->host : ""}};
  if (own != nullptr) {
    if (const std::string problem = transport.problem(own->host); !problem.empty()) {
      facts["problem"] = problem;
    }
  }
  const auto ports = transport.ports();
  if (!ports) {
    facts["error"] = ports.error().message();
    return facts;
  }
  facts["ports"] = nlohmann::json::array();
  for (const PagePort& port : *ports) {
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

bool serve_peer(const PeerService& service, PeerQueue::Newcomer newcomer) {
  const Result<Preamble> preamble = decode_preamble(newcomer.preamble);
  if (!preamble) {
    log::warn(service.log.no_preamble, "closed a connection from {}: {}", newcomer.name,
              preamble.error().message());
    refuse_version(newcomer.connection.get());
    return false;
  }
  if (preamble->purpose != Purpose::kOffer && preamble->purpose != Purpose::kQuery &&
      preamble->purpose != Purpose::kAsk) {
    pass_on(service, newcomer, *preamble);
    return false;
  }
  const Result<void> served = serve_newcomer(service, newcomer, *preamble);
  if (!served) {
    log::warn(service.log.refused, "refused {}: {}", newcomer.name, served.error().message());
  }
  return served.has_value();
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
  for (const PageTransport* const each : page_transports()) {
    facts[each->word] = facts_of(*each, context);
  }
  facts["drained"] = is_drained(context.state_directory).value_or(false);
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
