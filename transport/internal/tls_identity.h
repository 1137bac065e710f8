#pragma once

#include <string>

#include "transport/internal/openssl.h"
#include "transport/peer_identity.h"

namespace migrate {

/// Whom a certificate names; empty if there is none.
PeerIdentity identity_of(const X509* certificate);

/// Has the handshake fail unless the peer's certificate is for `host`, a name or a numeric address;
/// an empty one expects nothing. False if there is no memory.
bool expect_host(SSL* ssl, const std::string& host);

/// Why the handshake did not trust the peer's certificate, and what to do; `expected` is the host
/// that it was to be for, if any.
std::string why_not_trusted(const SSL* ssl, const std::string& expected);

/// Whether `host` is a numeric address.
bool is_numeric_address(const std::string& host);

}  // namespace migrate
