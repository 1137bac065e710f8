#include "transport/internal/local_peer.h"

#include <fmt/core.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <optional>
#include <sstream>
#include <thread>

#include "base/file.h"
#include "transport/address.h"
#include "transport/wait.h"

namespace migrate {
namespace {

constexpr const char* kOperation = "take a connection from";
constexpr const char* kRemedy =
    "give the daemons keys (migratectl keys, --keys) or --munge, so that peers can prove who they "
    "are";
// A reading may miss a connection while others come and go.
constexpr int kReadings = 4;
// Between looks whether a connection was accepted.
constexpr std::chrono::microseconds kShortestPause{100};
constexpr std::chrono::microseconds kLongestPause{5'000};

/// An address as the kernel's tables of IPv6 connections write it, IPv4 mapped into IPv6.
std::string table_form(const SocketAddress& address) {
  std::array<std::uint32_t, 4> words{0, 0, htonl(0xffff), 0};
  if (address.storage.ss_family == AF_INET) {
    sockaddr_in v4{};
    std::memcpy(&v4, &address.storage, sizeof v4);
    words[3] = v4.sin_addr.s_addr;
  } else {
    sockaddr_in6 v6{};
    std::memcpy(&v6, &address.storage, sizeof v6);
    std::memcpy(words.data(), &v6.sin6_addr, sizeof v6.sin6_addr);
  }
  return fmt::format("{:08X}{:08X}{:08X}{:08X}:{:04X}", words[0], words[1], words[2], words[3],
                     address.port());
}

/// The owner of the socket whose two ends are these, in the text of a table. Nothing if it is not
/// there, or no program has it open any more: the kernel then calls it root's.
std::optional<uid_t> owner_in(const std::string& table, const std::string& local,
                              const std::string& remote) {
  const std::string ends = ": " + local + " " + remote + " ";
  const std::size_t at = table.find(ends);
  if (at == std::string::npos) {
    return std::nullopt;
  }
  std::istringstream rest(table.substr(at + ends.size(), table.find('\n', at) - at - ends.size()));
  std::string state;
  std::string queues;
  std::string timer;
  std::string retransmits;
  std::string timeout;
  uid_t owner = 0;
  std::uint64_t inode = 0;
  rest >> state >> queues >> timer >> retransmits >> owner >> timeout >> inode;
  return rest && inode != 0 ? std::optional(owner) : std::nullopt;
}

/// The text of a table; none if the kernel does not know that family.
Result<std::string> read_table(const char* path) {
  auto table = read_file(path);
  return !table && table.error().code == ErrorCode::kNotFound ? std::string() : table;
}

/// Either end of an IPv4 connection may be a socket of either family.
Result<std::optional<uid_t>> look_for_owner(const std::string& local, const std::string& remote) {
  const std::string mapped = fmt::format("{:016X}{:08X}", 0, htonl(0xffff));
  if (local.starts_with(mapped) && remote.starts_with(mapped)) {
    const std::string table = MIGRATE_TRY(read_table("/proc/net/tcp"));
    if (const auto owner =
            owner_in(table, local.substr(mapped.size()), remote.substr(mapped.size()))) {
      return owner;
    }
  }
  return owner_in(MIGRATE_TRY(read_table("/proc/net/tcp6")), local, remote);
}

/// Two readings must agree: the kernel does not read owner and openness of a socket at one moment,
/// so that one which is just being closed may look like an open one of root.
Result<std::optional<uid_t>> owner_of(const std::string& local, const std::string& remote) {
  std::optional<uid_t> before;
  for (int reading = 0; reading < kReadings; ++reading) {
    const std::optional<uid_t> owner = MIGRATE_TRY(look_for_owner(local, remote));
    if (owner && owner == before) {
      return owner;
    }
    before = owner;
  }
  return std::nullopt;
}

template <class GetName>
Result<SocketAddress> end_of(int fd, GetName get_name) {
  SocketAddress address;
  address.length = sizeof address.storage;
  if (get_name(fd, reinterpret_cast<sockaddr*>(&address.storage), &address.length) != 0) {
    return fail(system_error("find the address of a connection"));
  }
  return address;
}

/// Whether the other end is within this network namespace: any address of the host may be bound to,
/// also to reach another one of its own. Errors: kSystem.
Result<bool> is_on_this_host(const SocketAddress& peer, const SocketAddress& own) {
  if (peer.is_loopback() || own.is_loopback() || peer.host() == own.host()) {
    return true;
  }
  // Whatever this host can bind to, it answers for.
  const UniqueFd probe(::socket(peer.storage.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!probe.valid()) {
    return fail(system_error("make a socket"));
  }
  SocketAddress address = peer;
  // The port is at the same place in both.
  reinterpret_cast<sockaddr_in*>(&address.storage)->sin_port = 0;
  if (::bind(probe.get(), address.get(), address.length) == 0) {
    return true;
  }
  if (errno != EADDRNOTAVAIL) {
    return fail(system_error("learn whose address it is", peer.host()));
  }
  return false;
}

bool is_trusted(uid_t owner) {
  return owner == 0 || owner == ::geteuid();
}

}  // namespace

Result<void> check_local_peer(int fd) {
  const SocketAddress peer = MIGRATE_TRY(end_of(fd, ::getpeername));
  const SocketAddress own = MIGRATE_TRY(end_of(fd, ::getsockname));
  if (!MIGRATE_TRY(is_on_this_host(peer, own))) {
    return {};
  }
  const auto owner = MIGRATE_TRY(owner_of(table_form(peer), table_form(own)));
  if (!owner) {
    return fail(make_error(ErrorCode::kRefused, kOperation, peer_name(fd),
                           std::string("whose it is cannot be found in /proc/net/tcp and tcp6, and "
                                       "nothing else authenticates it; ") +
                               kRemedy));
  }
  if (!is_trusted(*owner)) {
    return fail(make_error(ErrorCode::kRefused, kOperation, peer_name(fd),
                           fmt::format("it is user {}'s, and where nothing authenticates peers "
                                       "only root and user {} of this host may connect; {}",
                                       *owner, ::geteuid(), kRemedy)));
  }
  return {};
}

Result<void> check_local_listener(int fd, bool anywhere, int timeout_ms) {
  constexpr const char* kSay = "say anything to";
  const SocketAddress peer = MIGRATE_TRY(end_of(fd, ::getpeername));
  const SocketAddress own = MIGRATE_TRY(end_of(fd, ::getsockname));
  if (!MIGRATE_TRY(is_on_this_host(peer, own))) {
    return anywhere ? Result<void>()
                    : fail(make_error(ErrorCode::kRefused, kSay, peer_name(fd),
                                      std::string("nothing proves that a daemon of root listens "
                                                  "there; ") +
                                          kRemedy));
  }
  const Deadline deadline(timeout_ms);
  for (auto pause = kShortestPause;; pause = std::min(2 * pause, kLongestPause)) {
    const auto owner = MIGRATE_TRY(owner_of(table_form(peer), table_form(own)));
    if (owner && is_trusted(*owner)) {
      return {};
    }
    if (owner) {
      return fail(make_error(
          ErrorCode::kRefused, kSay, peer_name(fd),
          fmt::format("user {} listens there, and no daemon of root; {}", *owner, kRemedy)));
    }
    if (deadline.remaining_ms() == 0) {
      return fail(make_error(ErrorCode::kRetry, kSay, peer_name(fd),
                             "nobody has accepted the connection in the time given"));
    }
    std::this_thread::sleep_for(pause);
  }
}

}  // namespace migrate
