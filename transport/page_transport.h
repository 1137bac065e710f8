#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/mapping.h"
#include "base/result.h"
#include "transport/address.h"
#include "transport/channel.h"
#include "transport/preamble.h"

// Transports of pages: ways for the pages of a process beside the connections of the daemons. A
// worker at the destination listens by one of them for the connections of its session, and tells
// the source where, with a secret. What is above this knows of none but by page_transports().

namespace migrate {

/// A secret of one session: who shows it may connect. Told over the control connection.
using PageToken = std::array<std::byte, 16>;

/// What a connecting side shows.
struct PageGreeting {
  Purpose purpose = Purpose::kUrgent;
  SessionId session{};
  PageToken token{};
};

/// Memory of the peer that it lets this side read.
struct ExposedPlace {
  std::uint64_t address = 0;
  std::uint32_t key = 0;
};

/// A channel by which memory can also be read without the peer's processor doing anything. The
/// destination does so where its connections are of this class. Threads: as Channel.
class OneSidedChannel : public Channel {
 public:
  /// Most bytes of one read().
  static constexpr std::size_t kMaxReadBytes = std::size_t{128} << 10U;
  static constexpr std::size_t kMaxHeadBytes = 64;

  /// Lets the peer read `memory`, which is pinned, until the connection is destroyed; it belongs to
  /// the connection. What the peer must know to read it. Any thread. Errors: kSystem (it cannot be
  /// pinned, with what to do).
  virtual Result<ExposedPlace> expose(Mapping memory) = 0;

  /// Begins to read `length_bytes` of exposed memory. They are received like a message that `head`
  /// (borrowed) begins. Sending thread; does not block. Errors: kRetry (too many reads are under
  /// way), kInvalid (lengths), kPeerLost, kSystem. A read that the peer does not allow breaks the
  /// connection.
  virtual Result<void> read(std::span<const std::byte> head, const ExposedPlace& place,
                            std::size_t length_bytes) = 0;
};

/// Listens for the connections of one session, on a port that the system chooses. Created in the
/// process that will use the channels, which need not be such as can be handed to another one.
/// Owned by one thread.
class PageListener {
 public:
  virtual ~PageListener() = default;
  PageListener() = default;
  PageListener(const PageListener&) = delete;
  PageListener& operator=(const PageListener&) = delete;

  struct Accepted {
    Purpose purpose;
    std::unique_ptr<Channel> channel;
  };

  /// The next connection that showed session and token; all others are rejected. Blocks up to
  /// `timeout_ms` for a request (< 0: for ever), then up to two seconds until it stands. Errors:
  /// kRetry (none came), kRefused (someone without the token was rejected), kPeerLost, kSystem
  /// (such as no memory may be pinned); it stays usable after these. kUnsupported: the device was
  /// removed, which waits until this is destroyed.
  virtual Result<Accepted> accept(int timeout_ms) = 0;

  /// Polls readable when accept() has something. Borrowed.
  virtual int fd() const = 0;
  virtual std::uint16_t port() const = 0;
};

/// One port of a device of this host by which a transport goes.
struct PagePort {
  std::string device;                  ///< Such as "mlx5_0".
  int number = 1;                      ///< Of the port.
  std::string transport;               ///< What it is: "InfiniBand", "RoCE" or "iWARP".
  std::string state;                   ///< "active", "down", "initializing", "armed" or "unknown".
  unsigned mtu_bytes = 0;              ///< Active: the payload of one packet.
  std::vector<std::string> addresses;  ///< IP addresses that the port has.
};

/// For so long a source waits for each step of connecting; the connection manager of RDMA asks
/// again after four to eight seconds.
inline constexpr int kPageConnectMs = 10'000;

/// One transport of pages: a line of page_transports(). Immutable, from any thread.
struct PageTransport {
  /// Its word, in requests and as the scheme of addresses. Never changes: hosts tell it each other.
  const char* word;
  const char* name;  ///< For people.
  /// What this build lacks for it, to be said after "install"; null: nothing. With it, all below
  /// give kUnsupported.
  const char* missing;

  /// Whether a daemon may be told that its workers listen on `address`, whose port counts for
  /// nothing. Blocks: on the resolver. Errors: kInvalid (never possible, with what would be), those
  /// of Address::resolve().
  Result<void> (*check)(const Address& address);
  /// Why connections to `host`, an address of this host, cannot come in at present; empty: they
  /// can, as far as can be told. Of "0.0.0.0" and "::" any port will do. Blocks: on the resolver.
  std::string (*problem)(const std::string& host);
  /// The ports of all its devices. None is no error. Errors: kUnsupported (build), kSystem (such as
  /// no permission to open a device, with what to do about it).
  Result<std::vector<PagePort>> (*ports)();
  /// Listens on `host`, an address of this host. Errors: kUnsupported (build, no device, a port
  /// that is not active), kNotFound (host), kSystem (no permission, another kind of address).
  Result<std::unique_ptr<PageListener>> (*listen)(const std::string& host, const SessionId& session,
                                                  const PageToken& token);
  /// Connects a source, to which only requests and confirmations come. `source_host`: numeric
  /// address of this host to connect from; empty: the one that routes lead to. Blocks up to
  /// `timeout_ms` for each step of connecting. Errors: kInvalid (scheme), kNotFound (host),
  /// kUnsupported (build, no device that reaches it), kRefused (session or token), kPeerLost (no
  /// one listens), kRetry (timeout), kSystem.
  Result<std::unique_ptr<Channel>> (*connect)(const Address& address, const PageGreeting& greeting,
                                              const std::string& source_host, int timeout_ms);
};

/// All of them, best first.
std::span<const PageTransport* const> page_transports();

/// That of the word; null: there is none.
const PageTransport* find_page_transport(std::string_view word);

}  // namespace migrate
