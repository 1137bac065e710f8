#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/mapping.h"
#include "base/result.h"
#include "transport/address.h"
#include "transport/channel.h"
#include "transport/preamble.h"

namespace migrate {

/// Whether this build has RDMA. Without it everything below gives kUnsupported.
bool rdma_is_built();

/// One port of an RDMA device of this host.
struct RdmaPort {
  std::string device;                  ///< Such as "mlx5_0".
  int number = 1;                      ///< Of the port.
  std::string transport;               ///< "InfiniBand", "RoCE" or "iWARP".
  std::string state;                   ///< "active", "down", "initializing", "armed" or "unknown".
  unsigned mtu_bytes = 0;              ///< Active: the payload of one packet.
  std::vector<std::string> addresses;  ///< IP addresses that the port has, by its GIDs.
};

/// Why connections to `host`, an address of this host, cannot come in over RDMA; empty: they can,
/// as far as the ports tell. Of "0.0.0.0" and "::" any port will do. Blocks: on the resolver.
std::string rdma_listen_problem(const std::string& host);

/// The ports of all RDMA devices. None is no error. Errors: kUnsupported (build), kSystem (such as
/// no permission to open a device, with what to do about it).
Result<std::vector<RdmaPort>> rdma_ports();

/// A secret of one session: who shows it may connect. Told over the control connection.
using RdmaToken = std::array<std::byte, 16>;

/// What a connecting side shows; travels in the private data of the connection request.
struct RdmaGreeting {
  Purpose purpose = Purpose::kUrgent;
  SessionId session{};
  RdmaToken token{};
};

struct RdmaOptions {
  /// Of a connecting side: the numeric address of this host to connect from, which chooses the
  /// device; empty: the one that routes lead to.
  std::string source_host = {};
  /// Memory that the peer may write its messages into, pinned as long as the channel lives; a
  /// multiple of the page size, at least 64 KiB. A message of at most a quarter of it is received
  /// without a copy.
  std::size_t landing_bytes = std::size_t{2} << 20U;
  /// How long send() polls for room before it sleeps.
  std::uint32_t spin_us = 50;
};

/// Memory of the peer that it lets this side read.
struct RdmaPlace {
  std::uint64_t address = 0;
  std::uint32_t key = 0;
};

/// A channel over RDMA, by which memory can also be read without the peer's processor doing
/// anything. Threads: as Channel.
class RdmaConnection : public Channel {
 public:
  /// Most bytes of one read().
  static constexpr std::size_t kMaxReadBytes = std::size_t{128} << 10U;
  static constexpr std::size_t kMaxHeadBytes = 64;

  /// Lets the peer read `memory`, which is pinned, until the connection is destroyed; it belongs to
  /// the connection. What the peer must know to read it. Any thread. Errors: kSystem (it cannot be
  /// pinned, with what to do).
  virtual Result<RdmaPlace> expose(Mapping memory) = 0;

  /// Begins to read `length_bytes` of exposed memory. They are received like a message that `head`
  /// (borrowed) begins. Sending thread; does not block. Errors: kRetry (too many reads are under
  /// way), kInvalid (lengths), kPeerLost, kSystem. A read that the peer does not allow breaks the
  /// connection.
  virtual Result<void> read(std::span<const std::byte> head, const RdmaPlace& place,
                            std::size_t length_bytes) = 0;
};

/// Listens for the connections of one session, on a port that the system chooses. RDMA connections
/// cannot be handed to another process, so that each worker listens for itself; create it in the
/// process that will use the channels. Owned by one thread.
class RdmaListener {
 public:
  virtual ~RdmaListener() = default;
  RdmaListener() = default;
  RdmaListener(const RdmaListener&) = delete;
  RdmaListener& operator=(const RdmaListener&) = delete;

  struct Accepted {
    Purpose purpose;
    std::unique_ptr<RdmaConnection> channel;
  };

  /// Listens on `host`, an address of an RDMA port of this host. Connections must show `session`
  /// and `token`; all others are rejected. Errors: kUnsupported (build, no device), kNotFound
  /// (host), kSystem (no permission, address without RDMA). A port that is not active is
  /// kUnsupported, too.
  static Result<std::unique_ptr<RdmaListener>> create(const std::string& host,
                                                      const SessionId& session,
                                                      const RdmaToken& token);

  /// The next connection. Blocks up to `timeout_ms` for a request (< 0: for ever), then up to two
  /// seconds until it stands. Errors: kRetry (none came), kRefused (someone without the token was
  /// rejected), kPeerLost, kSystem (such as no memory may be pinned); it stays usable after these.
  /// kUnsupported: the device was removed, which waits until this is destroyed.
  virtual Result<Accepted> accept(int timeout_ms) = 0;

  /// Polls readable when accept() has something. Borrowed.
  virtual int fd() const = 0;
  virtual std::uint16_t port() const = 0;
};

/// Connects to a listener at `address` (rdma://ADDRESS:PORT). Blocks up to `timeout_ms` for each of
/// the four steps of connecting. Errors: kInvalid (scheme, options), kNotFound (host), kUnsupported
/// (build, no device that reaches it), kRefused (rejected: session or token), kPeerLost (no one
/// listens), kRetry (timeout), kSystem.
Result<std::unique_ptr<RdmaConnection>> connect_rdma(const Address& address,
                                                     const RdmaGreeting& greeting,
                                                     const RdmaOptions& options, int timeout_ms);

}  // namespace migrate
