#pragma once

#include <string>

#include "transport/internal/openssl.h"
#include "transport/tls.h"

namespace migrate {

/// Whom the peer's certificate names; empty if there is none.
PeerIdentity identity_of(const SSL* ssl);

/// Has the handshake fail unless the peer's certificate is for `host`, a name or a numeric address;
/// an empty one expects nothing. False if there is no memory.
bool expect_host(SSL* ssl, const std::string& host);

/// Whether `host` is a numeric address.
bool is_numeric_address(const std::string& host);

}  // namespace migrate
