#include "transport/peer_trust.h"

#include <sys/socket.h>

#include <array>
#include <chrono>
#include <thread>

#include "base/log.h"
#include "transport/internal/local_peer.h"
#include "transport/tcp.h"
#include "transport/wait.h"

namespace migrate {
namespace {

TcpOptions options_for(Purpose purpose) {
  TcpOptions options;
  options.bulk = purpose == Purpose::kBulk;
  if (purpose == Purpose::kHome) {
    options.user_timeout_ms = 0;  // A deputy may rightly read nothing for long.
  }
  return options;
}

TlsOptions tls_options(const Preamble& preamble, int timeout_ms) {
  const auto bytes = encode(preamble);
  TlsOptions options;
  options.binding.assign(bytes.begin(), bytes.end());
  options.handshake_timeout_ms = timeout_ms;
  options.tcp = options_for(preamble.purpose);
  return options;
}

/// What its peer cannot know yet, it should not take for a user's of this host.
SourcePort source_port(Purpose purpose) {
  const bool begins = purpose == Purpose::kOffer || purpose == Purpose::kQuery ||
                      purpose == Purpose::kResume || purpose == Purpose::kAsk;
  return begins ? SourcePort::kReserved : SourcePort::kAny;
}

PeerIdentity address_of(int fd) {
  SocketAddress address;
  address.length = sizeof address.storage;
  PeerIdentity identity;
  static_cast<void>(
      ::getpeername(fd, reinterpret_cast<sockaddr*>(&address.storage), &address.length));
  identity.alternative_names.push_back(address.host());
  return identity;
}

/// Whether what has come is the beginning of a TLS handshake (RFC 8446, 5.1). It cannot be that of
/// a frame, whose length it would make too large.
bool speaks_tls(int fd) {
  constexpr std::array<unsigned char, 2> kHandshakeRecord{0x16, 0x03};
  std::array<unsigned char, 2> begin{};
  return ::recv(fd, begin.data(), begin.size(), MSG_PEEK | MSG_DONTWAIT) ==
             static_cast<ssize_t>(begin.size()) &&
         begin == kHandshakeRecord;
}

}  // namespace

const char* PeerTrust::name() const {
  return encrypts() ? "tls" : authenticates() ? "munge" : "none";
}

std::optional<PeerIdentity> PeerTrust::own_identity() const {
  const auto* tls = std::get_if<TlsContext>(&way_);
  return tls != nullptr ? std::optional(tls->own_identity()) : std::nullopt;
}

Result<PeerTrust::Peer> PeerTrust::connect(const Address& address, const Preamble& preamble,
                                           int timeout_ms) const {
  constexpr auto kPause = std::chrono::milliseconds(50);
  const Deadline deadline(timeout_ms);
  Result<Peer> peer = try_connect(address, preamble, timeout_ms);
  while (!peer && peer.error().code == ErrorCode::kBusy && deadline.remaining_ms() != 0) {
    std::this_thread::sleep_for(kPause);
    peer = try_connect(address, preamble, timeout_ms);
  }
  if (!peer && peer.error().code == ErrorCode::kRefused) {
    log::warn("no connection to {}: {}", address.to_string(), peer.error().message());
  }
  return peer;
}

Result<PeerTrust::Peer> PeerTrust::try_connect(const Address& address, const Preamble& preamble,
                                               int timeout_ms) const {
  if (address.scheme == "tls" && !encrypts()) {
    return fail(make_error(ErrorCode::kRefused, "connect to", address.to_string(),
                           "this host's daemon has no keys for TLS; give it --keys"));
  }
  UniqueFd fd = MIGRATE_TRY(connect_tcp(address, timeout_ms, source_port(preamble.purpose)));
  if (!authenticates()) {
    MIGRATE_TRY(check_local_listener(fd.get(), anywhere_, timeout_ms));
  }
  MIGRATE_TRY(send_preamble(fd.get(), preamble));
  if (encrypts()) {
    return connect_tls(std::move(fd), address, preamble, timeout_ms);
  }
  PeerIdentity identity = address_of(fd.get());
  auto channel = MIGRATE_TRY(TcpChannel::create(std::move(fd), options_for(preamble.purpose)));
  if (const auto* munge = std::get_if<Munge>(&way_)) {
    MIGRATE_TRY(munge->prove_as_client(*channel, preamble, timeout_ms));
    identity.common_name = identity.alternative_names.front();
  }
  return Peer{std::move(channel), std::move(identity)};
}

Result<PeerTrust::Peer> PeerTrust::connect_tls(UniqueFd connection, const Address& address,
                                               const Preamble& preamble, int timeout_ms) const {
  TlsOptions options = tls_options(preamble, timeout_ms);
  options.expected_host = address.host;
  auto channel = TlsChannel::connect(std::move(connection), std::get<TlsContext>(way_), options);
  if (!channel) {
    Error error = std::move(channel).error();
    if (error.code == ErrorCode::kPeerLost || error.code == ErrorCode::kRetry) {
      error.remedy =
          "the log of its daemon says why; either it has no keys (--keys), or no time for this one";
    }
    return fail(std::move(error));
  }
  PeerIdentity identity = (*channel)->identity();
  return Peer{std::move(*channel), std::move(identity)};
}

Result<PeerTrust::Peer> PeerTrust::accept(UniqueFd connection, const Preamble& preamble,
                                          int timeout_ms) const {
  PeerIdentity identity = address_of(connection.get());
  if (const auto* tls = std::get_if<TlsContext>(&way_)) {
    auto channel = MIGRATE_TRY(
        TlsChannel::accept(std::move(connection), *tls, tls_options(preamble, timeout_ms)));
    identity = channel->identity();
    return Peer{std::move(channel), std::move(identity)};
  }
  if (speaks_tls(connection.get())) {
    return fail(make_error(ErrorCode::kRefused, "take a connection from", identity.to_string(),
                           "it wants TLS, for which this host's daemon has no keys; give it "
                           "--keys"));
  }
  if (!authenticates()) {
    MIGRATE_TRY(check_local_peer(connection.get()));
  }
  auto channel =
      MIGRATE_TRY(TcpChannel::create(std::move(connection), options_for(preamble.purpose)));
  if (const auto* munge = std::get_if<Munge>(&way_)) {
    MIGRATE_TRY(munge->prove_as_server(*channel, preamble, timeout_ms));
    identity.common_name = identity.alternative_names.front();
  }
  return Peer{std::move(channel), std::move(identity)};
}

}  // namespace migrate
