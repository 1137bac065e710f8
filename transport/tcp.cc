#include "transport/tcp.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <array>
#include <cerrno>
#include <random>
#include <tuple>

#include "transport/connection.h"
#include "transport/wait.h"

namespace migrate {
namespace {

Result<void> set_option(int fd, int level, int name, int value, const char* operation) {
  if (::setsockopt(fd, level, name, &value, sizeof value) != 0) {
    return fail(system_error(operation, peer_name(fd)));
  }
  return {};
}

bool is_tcp(int fd) {
  int protocol = 0;
  socklen_t length = sizeof protocol;
  return ::getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &length) == 0 &&
         protocol == IPPROTO_TCP;
}

Result<void> check_scheme(const Address& address, const char* operation) {
  if (address.scheme != "tcp" && address.scheme != "tls") {
    return fail(make_error(ErrorCode::kInvalid, operation, address.to_string(),
                           "TCP serves tcp:// and tls:// only"));
  }
  return {};
}

Result<UniqueFd> open_socket(const SocketAddress& address) {
  UniqueFd fd(::socket(address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.valid()) {
    return fail(system_error("open socket for", address.to_string()));
  }
  return fd;
}

Result<UniqueFd> listen_on(const SocketAddress& address) {
  UniqueFd fd = MIGRATE_TRY(open_socket(address));
  MIGRATE_TRY(set_option(fd.get(), SOL_SOCKET, SO_REUSEADDR, 1, "set SO_REUSEADDR"));
  if (::bind(fd.get(), address.get(), address.length) != 0 || ::listen(fd.get(), SOMAXCONN) != 0) {
    return fail(system_error("listen on", address.to_string(),
                             "check that no other daemon uses the port and that the address is "
                             "this host's"));
  }
  return fd;
}

/// Binds a socket of the family to a reserved port from a random one on; what is in use is passed
/// over. False if it is not permitted, or none of some is free.
bool bind_reserved_port(int fd, int family) {
  constexpr unsigned kFirst = 512;
  constexpr unsigned kCount = 512;
  constexpr unsigned kTries = 64;
  const int yes = 1;  // Beside connections from this port to other hosts.
  std::ignore = ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  sockaddr_in6 v6{};
  sockaddr_in v4{};
  v6.sin6_family = AF_INET6;
  v4.sin_family = AF_INET;
  std::random_device random;
  const unsigned start = random();
  for (unsigned i = 0; i < kTries; ++i) {
    const auto port = static_cast<std::uint16_t>(kFirst + (start + i) % kCount);
    v6.sin6_port = v4.sin_port = htons(port);
    const int bound = family == AF_INET6
                          ? ::bind(fd, reinterpret_cast<const sockaddr*>(&v6), sizeof v6)
                          : ::bind(fd, reinterpret_cast<const sockaddr*>(&v4), sizeof v4);
    if (bound == 0 || errno != EADDRINUSE) {
      return bound == 0;
    }
  }
  return false;
}

Result<UniqueFd> connect_to(const SocketAddress& address, const Deadline& deadline,
                            SourcePort source) {
  UniqueFd fd = MIGRATE_TRY(open_socket(address));
  const bool reserved =
      source == SourcePort::kReserved && bind_reserved_port(fd.get(), address.storage.ss_family);
  const char* const remedy = "check that migrated runs there and that no firewall is between";
  if (::connect(fd.get(), address.get(), address.length) == 0) {
    return fd;
  }
  if (reserved && errno == EADDRNOTAVAIL) {  // One from there has only just ended.
    return connect_to(address, deadline, SourcePort::kAny);
  }
  if (errno != EINPROGRESS) {
    return fail(system_error("connect to", address.to_string(), remedy));
  }
  if (MIGRATE_TRY(wait_for(fd.get(), POLLOUT, deadline)) == 0) {
    return fail(make_error(ErrorCode::kRetry, "connect to", address.to_string(),
                           "no answer in the time given; check that the host is up"));
  }
  int status = 0;
  socklen_t length = sizeof status;
  if (::getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &status, &length) != 0) {
    return fail(system_error("connect to", address.to_string()));
  }
  if (status != 0) {
    return fail(system_error_from(status, "connect to", address.to_string(), remedy));
  }
  return fd;
}

}  // namespace

Result<void> prepare_tcp(int fd, const TcpOptions& options) {
  const int flags = ::fcntl(fd, F_GETFL);
  if (flags < 0 || ::fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0) {
    return fail(system_error("make non-blocking", "descriptor " + std::to_string(fd)));
  }
  if (!is_tcp(fd)) {
    return {};
  }
  struct Option {
    int level;
    int name;
    int value;
    const char* operation;
  };
  const std::array<Option, 6> settings{{
      {IPPROTO_TCP, TCP_NODELAY, 1, "set TCP_NODELAY"},
      {SOL_SOCKET, SO_KEEPALIVE, 1, "set SO_KEEPALIVE"},
      {IPPROTO_TCP, TCP_KEEPIDLE, kKeepaliveIdleSeconds, "set TCP_KEEPIDLE"},
      {IPPROTO_TCP, TCP_KEEPINTVL, kKeepaliveIntervalSeconds, "set TCP_KEEPINTVL"},
      {IPPROTO_TCP, TCP_KEEPCNT, kKeepaliveProbes, "set TCP_KEEPCNT"},
      {IPPROTO_TCP, TCP_USER_TIMEOUT, static_cast<int>(options.user_timeout_ms),
       "set TCP_USER_TIMEOUT"},
  }};
  for (const Option& option : settings) {
    MIGRATE_TRY(set_option(fd, option.level, option.name, option.value, option.operation));
  }
  if (options.bulk) {
    // Failure (no CAP_NET_ADMIN) is fine: the kernel then tunes the buffers itself.
    const int size = kBulkBufferBytes;
    std::ignore = ::setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size);
    std::ignore = ::setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
  }
  return {};
}

Result<TcpListener> TcpListener::create(const Address& address) {
  MIGRATE_TRY(check_scheme(address, "listen on"));
  const auto candidates = MIGRATE_TRY(address.resolve(/*passive=*/true));
  Error error = make_error(ErrorCode::kNotFound, "listen on", address.to_string());
  for (const SocketAddress& candidate : candidates) {
    auto fd = listen_on(candidate);
    if (!fd) {
      error = std::move(fd).error();
      continue;
    }
    SocketAddress bound;
    bound.length = sizeof bound.storage;
    if (::getsockname(fd->get(), reinterpret_cast<sockaddr*>(&bound.storage), &bound.length) != 0) {
      return fail(system_error("get port of", address.to_string()));
    }
    return TcpListener(std::move(*fd), bound.port());
  }
  return fail(std::move(error));
}

Result<TcpListener::Accepted> TcpListener::accept(int timeout_ms) {
  const Deadline deadline(timeout_ms);
  for (;;) {
    UniqueFd fd(::accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (fd.valid()) {
      MIGRATE_TRY(prepare_tcp(fd.get(), {}));
      std::string peer = peer_name(fd.get());
      return Accepted{std::move(fd), std::move(peer)};
    }
    if (errno == EINTR || errno == ECONNABORTED) {
      continue;
    }
    if (errno != EAGAIN) {
      return fail(system_error("accept connection", "port " + std::to_string(port_)));
    }
    if (MIGRATE_TRY(wait_for(fd_.get(), POLLIN, deadline)) == 0) {
      return fail(make_error(ErrorCode::kRetry, "accept connection",
                             "port " + std::to_string(port_), "none came in the time given"));
    }
  }
}

Result<UniqueFd> connect_tcp(const Address& address, int timeout_ms, SourcePort source) {
  MIGRATE_TRY(check_scheme(address, "connect to"));
  const Deadline deadline(timeout_ms);
  const auto candidates = MIGRATE_TRY(address.resolve());
  Error error = make_error(ErrorCode::kNotFound, "connect to", address.to_string());
  for (const SocketAddress& candidate : candidates) {
    auto fd = connect_to(candidate, deadline, source);
    if (fd) {
      MIGRATE_TRY(prepare_tcp(fd->get(), {}));
      return fd;
    }
    error = std::move(fd).error();
  }
  return fail(std::move(error));
}

Result<std::unique_ptr<TcpChannel>> TcpChannel::create(UniqueFd fd, const TcpOptions& options) {
  MIGRATE_TRY(prepare_tcp(fd.get(), options));
  FrameReader reader = MIGRATE_TRY(FrameReader::create());
  std::string peer = peer_name(fd.get());
  return std::unique_ptr<TcpChannel>(
      new TcpChannel(std::move(fd), std::move(reader), std::move(peer)));
}

Error TcpChannel::lost(const char* operation) const {
  return make_error(ErrorCode::kPeerLost, operation, peer_);
}

Result<void> TcpChannel::send(std::span<const std::span<const std::byte>> parts) {
  const auto header = MIGRATE_TRY(frame_header(parts));
  std::array<iovec, kMaxMessageParts + 1> pieces;
  std::size_t piece_count = 0;
  std::size_t left = 0;
  const auto add = [&](std::span<const std::byte> bytes) {
    if (!bytes.empty()) {
      pieces[piece_count++] = {const_cast<std::byte*>(bytes.data()), bytes.size()};
      left += bytes.size();
    }
  };
  add(header);
  for (const auto& part : parts) {
    add(part);
  }
  iovec* first = pieces.data();
  for (;;) {
    if (broken_.load(std::memory_order_relaxed)) {
      return fail(lost("send to"));
    }
    msghdr message{};
    message.msg_iov = first;
    message.msg_iovlen = piece_count;
    const ssize_t result = ::sendmsg(fd_.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (result < 0 && errno == EAGAIN) {
      MIGRATE_TRY(wait_until_writable(fd_.get(), peer_));
      continue;
    }
    if (result < 0 && errno == EINTR) {
      continue;
    }
    if (result < 0) {
      // A message may be cut in two: nothing that follows would be understood.
      Error error = socket_error("send to", peer_);
      shutdown();
      return fail(std::move(error));
    }
    std::size_t done = static_cast<std::size_t>(result);
    sent_.fetch_add(done, std::memory_order_relaxed);
    left -= done;
    if (left == 0) {
      return {};
    }
    while (done >= first->iov_len) {
      done -= first->iov_len;
      ++first;
      --piece_count;
    }
    first->iov_base = static_cast<std::byte*>(first->iov_base) + done;
    first->iov_len -= done;
  }
}

Result<std::size_t> TcpChannel::read_some(std::span<std::byte> buffer) {
  for (;;) {
    const ssize_t count = ::recv(fd_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (count > 0) {
      received_.fetch_add(static_cast<std::uint64_t>(count), std::memory_order_relaxed);
      return static_cast<std::size_t>(count);
    }
    if (count == 0) {
      return fail(lost("receive from"));
    }
    if (errno == EAGAIN) {
      return 0;
    }
    if (errno != EINTR) {
      return fail(socket_error("receive from", peer_));
    }
  }
}

Result<std::optional<std::span<const std::byte>>> TcpChannel::try_receive() {
  if (broken_.load(std::memory_order_relaxed)) {
    return fail(lost("receive from"));
  }
  return reader_.next(*this);
}

Result<std::span<const std::byte>> TcpChannel::receive(std::uint32_t spin_us, int timeout_ms) {
  return receive_by_polling(*this, spin_us, timeout_ms);
}

void TcpChannel::shutdown() {
  broken_.store(true, std::memory_order_relaxed);
  // Wakes whoever polls; an error means that the connection is gone already.
  std::ignore = ::shutdown(fd_.get(), SHUT_RDWR);
}

}  // namespace migrate
