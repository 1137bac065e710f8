#include <algorithm>
#include <optional>

#include "transport/rdma.h"
#include "transport/rdma/channel.h"

namespace migrate {
namespace rdma {
namespace {

// Only requests and confirmations come to a source.
constexpr std::size_t kSourceLanding = std::size_t{64} << 10U;

/// The address to connect from, if one was chosen that is of the family of `target`.
Result<std::optional<SocketAddress>> source_for(const SocketAddress& target,
                                                const std::string& source_host) {
  if (source_host.empty()) {
    return std::nullopt;
  }
  const Address source{.scheme = "rdma", .host = source_host, .port = 0};
  for (const SocketAddress& candidate : MIGRATE_TRY(source.resolve())) {
    if (candidate.storage.ss_family == target.storage.ss_family) {
      return candidate;
    }
  }
  return std::nullopt;
}

/// Finds the device that leads to `target`.
Result<Handle<rdma_cm_id>> resolve(rdma_event_channel* events, const SocketAddress& target,
                                   const std::string& source_host, const std::string& name,
                                   int timeout_ms) {
  const auto source = MIGRATE_TRY(source_for(target, source_host));
  Handle<rdma_cm_id> id = MIGRATE_TRY(create_id(events));
  // The library does not change the addresses.
  auto* const from = source ? const_cast<sockaddr*>(source->get()) : nullptr;
  auto* const to = const_cast<sockaddr*>(target.get());
  if (::rdma_resolve_addr(id.get(), from, to, timeout_ms) != 0) {
    const int number = errno;
    Error error = system_error_from(number, "find the RDMA port that leads to", name,
                                    port_remedy(source_host));
    error.code = ErrorCode::kUnsupported;
    return fail(std::move(error));
  }
  MIGRATE_TRY(expect_event(events, RDMA_CM_EVENT_ADDR_RESOLVED, Deadline(timeout_ms),
                           "find the RDMA port that leads to", name));
  MIGRATE_TRY(check_port(*id, "find the RDMA port that leads to", name));
  if (::rdma_resolve_route(id.get(), timeout_ms) != 0) {
    return fail(system_error("find the RDMA route to", name));
  }
  MIGRATE_TRY(expect_event(events, RDMA_CM_EVENT_ROUTE_RESOLVED, Deadline(timeout_ms),
                           "find the RDMA route to", name));
  return id;
}

Result<std::unique_ptr<OneSidedChannel>> connect_to(const SocketAddress& target,
                                                    const PageGreeting& greeting,
                                                    const RdmaOptions& options, int timeout_ms) {
  const std::string name = rdma_name(target.get());
  Endpoint endpoint;
  endpoint.events = MIGRATE_TRY(open_events());
  endpoint.id =
      MIGRATE_TRY(resolve(endpoint.events.get(), target, options.source_host, name, timeout_ms));
  MIGRATE_TRY(endpoint.prepare(options));
  const auto request = encode_request({greeting, endpoint.landing_place()});
  rdma_conn_param parameters = connection_parameters(request);
  if (::rdma_connect(endpoint.id.get(), &parameters) != 0) {
    return fail(system_error("connect to", name));
  }
  const ConnectionEvent established = MIGRATE_TRY(expect_event(
      endpoint.events.get(), RDMA_CM_EVENT_ESTABLISHED, Deadline(timeout_ms), "connect to", name));
  const Landing peer =
      MIGRATE_TRY(decode_reply(std::as_bytes(std::span(established.private_data))));
  MIGRATE_TRY(endpoint.prepare_staging(peer));
  return MIGRATE_TRY(RdmaChannel::create(std::move(endpoint), name, options.spin_us));
}

Result<void> check_address(const Address& address) {
  if (MIGRATE_TRY(address.is_loopback())) {
    return fail(make_error(ErrorCode::kInvalid, "listen on", "rdma://" + address.host,
                           "no RDMA port has a loopback address; `rdma link` and `ip address` tell "
                           "those that have one"));
  }
  return {};
}

Result<std::unique_ptr<Channel>> connect_source(const Address& address,
                                                const PageGreeting& greeting,
                                                const std::string& source_host, int timeout_ms) {
  return connect_rdma(address, greeting,
                      {.source_host = source_host, .landing_bytes = kSourceLanding}, timeout_ms);
}

}  // namespace
}  // namespace rdma

Result<std::unique_ptr<OneSidedChannel>> connect_rdma(const Address& address,
                                                      const PageGreeting& greeting,
                                                      const RdmaOptions& options, int timeout_ms) {
  if (address.scheme != "rdma") {
    return fail(make_error(ErrorCode::kInvalid, "connect to", address.to_string(),
                           "RDMA serves rdma:// only"));
  }
  Error error = make_error(ErrorCode::kNotFound, "connect to", address.to_string());
  for (const SocketAddress& target : MIGRATE_TRY(address.resolve())) {
    auto channel = rdma::connect_to(target, greeting, options, timeout_ms);
    if (channel) {
      return channel;
    }
    error = std::move(channel).error();
  }
  return fail(std::move(error));
}

constinit const PageTransport kRdma = {
    .word = "rdma",
    .name = "RDMA",
    .missing = nullptr,
    .check = rdma::check_address,
    .problem = rdma_problem,
    .ports = rdma_ports,
    .listen = listen_rdma,
    .connect = rdma::connect_source,
};

}  // namespace migrate
