#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

#include "transport/internal/openssl.h"
#include "transport/tls.h"

namespace migrate {

/// OpenSSL's end of a connection. Used under the channel's lock, `sent` but for reading.
struct TlsWire {
  int fd = -1;
  std::span<const std::byte> incoming;  ///< Encrypted bytes to be read; refilled by the channel.
  std::atomic<std::uint64_t> sent{0};   ///< Encrypted bytes given to the socket.
};

struct TlsContext::State {
  UniqueBioMethod wire_method;
  UniqueSslContext context;
};

/// A kind of BIO that reads from TlsWire::incoming and writes to the socket without blocking and
/// without SIGPIPE, which OpenSSL's own would raise. Null if there is no memory.
UniqueBioMethod make_wire_method();

/// A BIO of that kind over `wire` (borrowed). Null if there is no memory.
UniqueBio make_wire_bio(const BIO_METHOD* method, TlsWire& wire);

}  // namespace migrate
