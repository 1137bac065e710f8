#include "transport/internal/tls_wire.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace migrate {
namespace {

TlsWire& wire_of(BIO* bio) {
  return *static_cast<TlsWire*>(::BIO_get_data(bio));
}

int read_wire(BIO* bio, char* buffer, int size) {
  TlsWire& wire = wire_of(bio);
  ::BIO_clear_flags(bio, BIO_FLAGS_RWS | BIO_FLAGS_SHOULD_RETRY);
  if (wire.incoming.empty()) {
    ::BIO_set_flags(bio, BIO_FLAGS_READ | BIO_FLAGS_SHOULD_RETRY);
    return -1;
  }
  const std::size_t count = std::min(wire.incoming.size(), static_cast<std::size_t>(size));
  std::memcpy(buffer, wire.incoming.data(), count);
  wire.incoming = wire.incoming.subspan(count);
  return static_cast<int>(count);
}

int write_wire(BIO* bio, const char* data, int size) {
  TlsWire& wire = wire_of(bio);
  ::BIO_clear_flags(bio, BIO_FLAGS_RWS | BIO_FLAGS_SHOULD_RETRY);
  for (;;) {
    const ssize_t count =
        ::send(wire.fd, data, static_cast<std::size_t>(size), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count >= 0) {
      wire.sent.fetch_add(static_cast<std::uint64_t>(count), std::memory_order_relaxed);
      return static_cast<int>(count);
    }
    if (errno == EAGAIN) {
      ::BIO_set_flags(bio, BIO_FLAGS_WRITE | BIO_FLAGS_SHOULD_RETRY);
      return -1;
    }
    if (errno != EINTR) {
      return -1;
    }
  }
}

long control_wire(BIO*, int command, long, void*) {
  return command == BIO_CTRL_FLUSH ? 1 : 0;
}

}  // namespace

UniqueBioMethod make_wire_method() {
  UniqueBioMethod method(::BIO_meth_new(BIO_TYPE_SOURCE_SINK, "migrate wire"));
  if (method) {
    ::BIO_meth_set_read(method.get(), read_wire);
    ::BIO_meth_set_write(method.get(), write_wire);
    ::BIO_meth_set_ctrl(method.get(), control_wire);
  }
  return method;
}

UniqueBio make_wire_bio(const BIO_METHOD* method, TlsWire& wire) {
  UniqueBio bio(::BIO_new(method));
  if (bio) {
    ::BIO_set_data(bio.get(), &wire);
    ::BIO_set_init(bio.get(), 1);
  }
  return bio;
}

}  // namespace migrate
