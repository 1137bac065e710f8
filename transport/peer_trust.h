#pragma once

#include <memory>
#include <optional>
#include <variant>

#include "base/result.h"
#include "base/unique_fd.h"
#include "transport/address.h"
#include "transport/channel.h"
#include "transport/munge.h"
#include "transport/peer_identity.h"
#include "transport/preamble.h"
#include "transport/tls.h"

namespace migrate {

/// How this host and others prove to each other who they are when they connect: by TLS, which also
/// encrypts what follows, by MUNGE, which does not, or not at all. A value type; const-thread-safe.
class PeerTrust {
 public:
  /// A connection whose other end is known as far as the kind of trust goes.
  struct Peer {
    std::unique_ptr<Channel> channel;
    PeerIdentity identity;
  };

  /// Nobody proves anything, and everything is sent in the clear. What is not this host's own
  /// root's is connected to only if `anywhere`.
  explicit PeerTrust(bool anywhere = false) : anywhere_(anywhere) {}
  explicit PeerTrust(TlsContext context) : way_(std::move(context)) {}
  explicit PeerTrust(Munge munge) : way_(std::move(munge)) {}

  bool authenticates() const { return !std::holds_alternative<std::monostate>(way_); }
  bool encrypts() const { return std::holds_alternative<TlsContext>(way_); }
  /// Whom this host's certificate names; nothing if it needs none.
  std::optional<PeerIdentity> own_identity() const;
  /// "tls", "munge" or "none".
  const char* name() const;

  /// Connects to the daemon at `address`, sends the preamble and proves who this host is. With TLS
  /// the peer must prove to be address.host. Blocks up to `timeout_ms` for the connection and again
  /// for each message of the proof; a peer that has no place is asked again for as long, which is
  /// not known yet where nothing is proved. What is refused is logged too, as whoever asked may be
  /// no administrator. Errors: as connect_tcp(), TlsChannel::connect() and Munge; where nobody
  /// proves anything, kRefused for who is not known to be root's daemon (see the constructor).
  Result<Peer> connect(const Address& address, const Preamble& preamble, int timeout_ms) const;

  /// The other side: `connection` has had its preamble read. Blocks up to `timeout_ms` for each
  /// message. Errors: as TlsChannel::accept() and Munge; kRefused for a peer that uses TLS where
  /// this host does not, and, where nobody proves anything, for a connection over loopback that is
  /// neither root's nor this process's own user's.
  Result<Peer> accept(UniqueFd connection, const Preamble& preamble, int timeout_ms) const;

 private:
  Result<Peer> try_connect(const Address& address, const Preamble& preamble, int timeout_ms) const;
  Result<Peer> connect_tls(UniqueFd connection, const Address& address, const Preamble& preamble,
                           int timeout_ms) const;

  std::variant<std::monostate, TlsContext, Munge> way_;
  bool anywhere_ = false;
};

}  // namespace migrate
