#include "libmigrate/move/page_transport.h"

#include <algorithm>

#include "base/log.h"

namespace migrate {
namespace {

// The connection manager asks again after four to eight seconds.
constexpr int kRdmaConnectMs = 10000;
// Somebody waits for his pages, and TCP is there too.
constexpr int kReconnectTimeoutMs = 2000;
// Only requests and confirmations come this way.
constexpr std::size_t kSourceLanding = std::size_t{64} << 10U;

bool listens_on_all(const WorkerContext& context) {
  return Address{.host = context.rdma_host}.is_any();
}

/// The address of this host that workers listen on, as others reach it.
std::string announced_host(const WorkerContext& context) {
  return listens_on_all(context) ? context.own_address.host : context.rdma_host;
}

}  // namespace

RdmaRoute::RdmaRoute(PageTransport wanted, const WorkerContext& context)
    : wanted_(wanted),
      has_own_(!context.rdma_host.empty()),
      source_host_(listens_on_all(context) ? "" : context.rdma_host),
      timeout_ms_(kRdmaConnectMs) {}

bool RdmaRoute::wanted() const {
  return rdma_is_built() &&
         (wanted_ == PageTransport::kRdma || (wanted_ == PageTransport::kAuto && has_own_));
}

void RdmaRoute::allow_tcp() {
  wanted_ = wanted_ == PageTransport::kRdma ? PageTransport::kAuto : wanted_;
  timeout_ms_ = kReconnectTimeoutMs;
}

Result<void> RdmaRoute::settle(const SessionId& session, const wire::OfferReply& reply) {
  place_.reset();
  session_ = session;
  std::string why_not = rdma_is_built() ? reply.no_rdma() : "this host's libmigrate has no RDMA";
  if (wanted() && reply.has_rdma()) {
    auto place = Address::parse(reply.rdma().address());
    if (place && place->scheme == "rdma" && reply.rdma().token().size() == token_.size()) {
      std::copy_n(reinterpret_cast<const std::byte*>(reply.rdma().token().data()), token_.size(),
                  token_.begin());
      place_ = std::move(*place);
      return {};
    }
    why_not = "its RDMA address cannot be read: " + reply.rdma().address();
  }
  if (wanted_ == PageTransport::kRdma) {
    return fail(make_error(ErrorCode::kUnsupported, "move over RDMA", "session " + to_hex(session),
                           why_not.empty() ? "the destination has none" : why_not));
  }
  if (wanted()) {
    log::info("session {}: pages go over TCP: {}", to_hex(session), why_not);
  }
  return {};
}

Result<std::unique_ptr<Channel>> RdmaRoute::connect(Purpose purpose) {
  if (!place_) {
    return std::unique_ptr<Channel>();
  }
  auto channel =
      connect_rdma(*place_, {purpose, session_, token_},
                   {.source_host = source_host_, .landing_bytes = kSourceLanding}, timeout_ms_);
  if (!channel && wanted_ != PageTransport::kRdma) {
    log::warn("session {}: pages go over TCP: {}", to_hex(session_), channel.error().message());
    place_.reset();
    return std::unique_ptr<Channel>();
  }
  return channel;
}

std::unique_ptr<RdmaListener> listen_for_pages(const WorkerContext& context,
                                               const SessionId& session, wire::OfferReply& reply) {
  if (context.rdma_host.empty()) {
    reply.set_no_rdma("migrated at the destination was not told to --listen rdma://ADDRESS");
    return nullptr;
  }
  const auto token = random_session_id();
  auto listener = token ? RdmaListener::create(context.rdma_host, session, *token)
                        : Result<std::unique_ptr<RdmaListener>>(fail(token.error()));
  if (!listener) {
    log::warn("session {}: {}", to_hex(session), listener.error().message());
    reply.set_no_rdma("at the destination: " + listener.error().message());
    return nullptr;
  }
  const Address place{
      .scheme = "rdma", .host = announced_host(context), .port = (*listener)->port()};
  reply.mutable_rdma()->set_address(place.to_string());
  reply.mutable_rdma()->set_token(token->data(), token->size());
  return std::move(*listener);
}

}  // namespace migrate
