#include <netinet/in.h>
#include <openssl/crypto.h>

#include <utility>

#include "transport/rdma.h"
#include "transport/rdma/channel.h"

namespace migrate {
namespace rdma {
namespace {

constexpr int kBacklog = 8;
constexpr int kEstablishMs = 2000;
// Faults answered with up to 1 MiB; pushes of 1 MiB, seven of them under way. The other way only
// requests go.
constexpr std::size_t kUrgentLanding = std::size_t{4} << 20U;
constexpr std::size_t kBulkLanding = std::size_t{8} << 20U;

void reject(rdma_cm_id* id, RejectReason reason) {
  const auto bytes = encode_reject(reason);
  ::rdma_reject(id, bytes.data(), static_cast<std::uint8_t>(bytes.size()));
}

class Listener final : public PageListener {
 public:
  Listener(Handle<rdma_event_channel> events, Handle<rdma_cm_id> id, const SessionId& session,
           const PageToken& token)
      : events_(std::move(events)), id_(std::move(id)), session_(session), token_(token) {}

  Result<Accepted> accept(int timeout_ms) override {
    const Deadline deadline(timeout_ms);
    for (;;) {
      const ConnectionEvent event = MIGRATE_TRY(next_event(events_.get(), deadline));
      if (event.type == RDMA_CM_EVENT_CONNECT_REQUEST) {
        return take(event);
      }
      if (event.type == RDMA_CM_EVENT_DEVICE_REMOVAL) {
        return fail(make_error(ErrorCode::kUnsupported, "accept RDMA connections", name(),
                               "the device was removed"));
      }
    }
  }

  int fd() const override { return events_->fd; }
  std::uint16_t port() const override { return ::ntohs(::rdma_get_src_port(id_.get())); }

 private:
  std::string name() const { return rdma_name(::rdma_get_local_addr(id_.get())); }

  Result<Accepted> take(const ConnectionEvent& event) {
    Handle<rdma_cm_id> id(event.id);
    const std::string peer = rdma_name(::rdma_get_peer_addr(id.get()));
    const auto request = decode_request(std::as_bytes(std::span(event.private_data)));
    if (!request) {
      reject(id.get(), RejectReason::kVersion);
      Error error = request.error();
      error.code = ErrorCode::kRefused;
      error.object = peer;
      return fail(std::move(error));
    }
    const PageGreeting& greeting = request->greeting;
    const bool known = greeting.session == session_ &&
                       ::CRYPTO_memcmp(greeting.token.data(), token_.data(), token_.size()) == 0;
    if (!known) {
      reject(id.get(), RejectReason::kSession);
      return fail(make_error(ErrorCode::kRefused, "accept", peer,
                             "it showed another session or a wrong token"));
    }
    if (greeting.purpose != Purpose::kUrgent && greeting.purpose != Purpose::kBulk) {
      reject(id.get(), RejectReason::kPurpose);
      return fail(make_error(ErrorCode::kRefused, "accept", peer,
                             "only page requests and pushes go over RDMA"));
    }
    return Accepted{greeting.purpose, MIGRATE_TRY(establish(std::move(id), *request, peer))};
  }

  Result<std::unique_ptr<OneSidedChannel>> establish(Handle<rdma_cm_id> id, const Request& request,
                                                     const std::string& peer) {
    // Its events from now on are the channel's.
    Endpoint endpoint;
    endpoint.events = MIGRATE_TRY(open_events());
    endpoint.id = std::move(id);
    if (::rdma_migrate_id(endpoint.id.get(), endpoint.events.get()) != 0) {
      return fail(system_error("accept", peer));
    }
    RdmaOptions options;
    options.landing_bytes =
        request.greeting.purpose == Purpose::kBulk ? kBulkLanding : kUrgentLanding;
    auto prepared = endpoint.prepare(options);
    if (prepared) {
      prepared = endpoint.prepare_staging(request.landing);
    }
    if (!prepared) {
      reject(endpoint.id.get(), RejectReason::kResources);
      return fail(std::move(prepared).error());
    }
    const auto reply = encode_reply(endpoint.landing_place());
    rdma_conn_param parameters = connection_parameters(reply);
    if (::rdma_accept(endpoint.id.get(), &parameters) != 0) {
      return fail(system_error("accept", peer));
    }
    if (auto established = expect_event(endpoint.events.get(), RDMA_CM_EVENT_ESTABLISHED,
                                        Deadline(kEstablishMs), "accept", peer);
        !established) {
      established.error().code = ErrorCode::kPeerLost;  // kRetry: nobody came.
      return fail(std::move(established).error());
    }
    return MIGRATE_TRY(RdmaChannel::create(std::move(endpoint), peer, options.spin_us));
  }

  const Handle<rdma_event_channel> events_;
  const Handle<rdma_cm_id> id_;
  const SessionId session_;
  const PageToken token_;
};

}  // namespace
}  // namespace rdma

Result<std::unique_ptr<PageListener>> listen_rdma(const std::string& host, const SessionId& session,
                                                  const PageToken& token) {
  Address address;
  address.scheme = "rdma";
  address.host = host;
  address.port = 0;
  Error error = make_error(ErrorCode::kNotFound, "listen on", address.to_string());
  for (const SocketAddress& candidate : MIGRATE_TRY(address.resolve(/*passive=*/true))) {
    rdma::Handle<rdma_event_channel> events = MIGRATE_TRY(rdma::open_events());
    rdma::Handle<rdma_cm_id> id = MIGRATE_TRY(rdma::create_id(events.get()));
    // The library does not change the address.
    auto* const raw = const_cast<sockaddr*>(candidate.get());
    if (::rdma_bind_addr(id.get(), raw) != 0 || ::rdma_listen(id.get(), rdma::kBacklog) != 0) {
      const int number = errno;
      error = system_error_from(number, "listen on", rdma::rdma_name(raw),
                                rdma::port_remedy(candidate.host()));
      error.code = ErrorCode::kSystem;
      continue;
    }
    MIGRATE_TRY(rdma::check_port(*id, "listen on", rdma::rdma_name(raw)));
    return std::make_unique<rdma::Listener>(std::move(events), std::move(id), session, token);
  }
  return fail(std::move(error));
}

}  // namespace migrate
