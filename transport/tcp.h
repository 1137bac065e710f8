#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"
#include "transport/address.h"
#include "transport/channel.h"
#include "transport/frame.h"

namespace migrate {

/// How long sent bytes may stay unacknowledged, or the peer's window closed, before the kernel
/// gives the connection up (TCP_USER_TIMEOUT). A peer that stops reading for longer is lost too.
inline constexpr unsigned kUserTimeoutMs = 5000;
/// An idle connection is probed after 2 s, then every second, and given up when nothing was heard
/// for kUserTimeoutMs: about five seconds to notice that a peer is gone.
inline constexpr int kKeepaliveIdleSeconds = 2;
inline constexpr int kKeepaliveIntervalSeconds = 1;
inline constexpr int kKeepaliveProbes = 3;
/// Socket buffers of a bulk connection, in bytes.
inline constexpr int kBulkBufferBytes = 4 << 20;

struct TcpOptions {
  /// Large socket buffers for throughput; else the kernel's own, which suit small messages.
  bool bulk = false;
  /// See kUserTimeoutMs; 0 leaves the kernel's default (many minutes). Raise it on a connection
  /// whose reader may rightly pause for long.
  unsigned user_timeout_ms = kUserTimeoutMs;
};

/// Sets TCP_NODELAY, keep-alive, TCP_USER_TIMEOUT and buffers, and makes the socket non-blocking.
/// Buffers are set only where the process may exceed net.core.*mem_max (CAP_NET_ADMIN): smaller
/// fixed ones would be worse than the kernel's own tuning. Errors: kSystem.
Result<void> prepare_tcp(int fd, const TcpOptions& options);

/// A socket that accepts connections. Closed when destroyed. Owned by one thread.
class TcpListener {
 public:
  struct Accepted {
    UniqueFd fd;       ///< Non-blocking, close-on-exec, prepared with default TcpOptions.
    std::string peer;  ///< "tcp://ADDRESS:PORT"
  };

  /// Listens on the first address of `address` that can be bound; port 0 picks a free one.
  /// Errors: kInvalid (scheme), kNotFound (host), kSystem (in use, not permitted).
  static Result<TcpListener> create(const Address& address);

  /// The next connection. Blocks up to `timeout_ms` (< 0: for ever). Errors: kRetry (none came),
  /// kSystem (such as no descriptors left; the listener stays usable).
  Result<Accepted> accept(int timeout_ms = -1);

  /// Polls readable when accept() has something. Borrowed.
  int fd() const { return fd_.get(); }
  std::uint16_t port() const { return port_; }

 private:
  TcpListener(UniqueFd fd, std::uint16_t port) : fd_(std::move(fd)), port_(port) {}

  UniqueFd fd_;
  std::uint16_t port_;
};

/// From which port to connect.
enum class SourcePort {
  kAny,
  /// One below 1024, which only root of a host can take: the peer's daemon then does not mistake
  /// this connection for one of the host's users. Any, if there is none or this is not permitted.
  kReserved,
};

/// Connects to the first address of `address` that answers. Blocks up to `timeout_ms` (< 0: as
/// long as the kernel tries). The socket is non-blocking, close-on-exec, prepared with default
/// TcpOptions. Errors: kInvalid (scheme), kNotFound (host), kPeerLost (refused, unreachable),
/// kRetry (timeout), kSystem.
Result<UniqueFd> connect_tcp(const Address& address, int timeout_ms,
                             SourcePort source = SourcePort::kAny);

/// A Channel over a connected stream socket: frames as in transport/frame.h, plain.
/// Destroying it closes the socket; bytes that were not read yet make that a reset, which may
/// overtake what was sent last: let the receiver of the last message close first.
class TcpChannel final : public Channel, private ByteSource {
 public:
  /// Takes the socket over. `fd` may also be a Unix stream socket (options are then ignored).
  /// Errors: kSystem.
  static Result<std::unique_ptr<TcpChannel>> create(UniqueFd fd, const TcpOptions& options = {});

  Result<void> send(std::span<const std::span<const std::byte>> parts) override;
  Result<std::optional<std::span<const std::byte>>> try_receive() override;
  Result<std::span<const std::byte>> receive(std::uint32_t spin_us = 0,
                                             int timeout_ms = -1) override;
  int poll_fd() const override { return fd_.get(); }
  Result<bool> arm() override { return reader_.has_message(); }
  std::uint64_t bytes_sent() const override { return sent_.load(std::memory_order_relaxed); }
  std::uint64_t bytes_received() const override {
    return received_.load(std::memory_order_relaxed);
  }
  void shutdown() override;

  const std::string& peer() const { return peer_; }

 private:
  TcpChannel(UniqueFd fd, FrameReader reader, std::string peer)
      : fd_(std::move(fd)), peer_(std::move(peer)), reader_(std::move(reader)) {}

  Result<std::size_t> read_some(std::span<std::byte> buffer) override;
  Error lost(const char* operation) const;

  const UniqueFd fd_;
  const std::string peer_;
  FrameReader reader_;  // receiving thread
  std::atomic<bool> broken_{false};
  std::atomic<std::uint64_t> sent_{0};
  std::atomic<std::uint64_t> received_{0};
};

}  // namespace migrate
