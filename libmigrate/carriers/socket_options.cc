#include "libmigrate/carriers/internal/socket_options.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/unique_fd.h"

namespace migrate::carriers {
namespace {

// Of newer kernels than the headers may be of.
constexpr int kPassRights = 83;  // SO_PASSRIGHTS, 6.16

struct KnownOption {
  int name;
  bool is_carried;
  const char* text;
};

// Those of socket(7) and unix(7) that a Unix domain socket takes. The lock comes after the buffers,
// which set it. The others need rights that their user may not have, or cannot be read.
constexpr std::array kOptions = std::to_array<KnownOption>({
    {SO_SNDBUF, true, "SO_SNDBUF"},        {SO_RCVBUF, true, "SO_RCVBUF"},
    {kBufferLock, true, "SO_BUF_LOCK"},    {SO_RCVLOWAT, true, "SO_RCVLOWAT"},
    {SO_RCVTIMEO, true, "SO_RCVTIMEO"},    {SO_SNDTIMEO, true, "SO_SNDTIMEO"},
    {SO_LINGER, true, "SO_LINGER"},        {SO_PASSCRED, true, "SO_PASSCRED"},
    {SO_PASSSEC, true, "SO_PASSSEC"},      {kPassPidfd, true, "SO_PASSPIDFD"},
    {kPassRights, true, "SO_PASSRIGHTS"},  {SO_PEEK_OFF, true, "SO_PEEK_OFF"},
    {SO_KEEPALIVE, true, "SO_KEEPALIVE"},  {SO_OOBINLINE, true, "SO_OOBINLINE"},
    {SO_REUSEADDR, true, "SO_REUSEADDR"},  {SO_REUSEPORT, true, "SO_REUSEPORT"},
    {SO_DONTROUTE, true, "SO_DONTROUTE"},  {SO_BROADCAST, true, "SO_BROADCAST"},
    {SO_TIMESTAMP, true, "SO_TIMESTAMP"},  {SO_TIMESTAMPNS, true, "SO_TIMESTAMPNS"},
    {SO_RXQ_OVFL, true, "SO_RXQ_OVFL"},    {SO_TIMESTAMPING, false, "SO_TIMESTAMPING"},
    {SO_PRIORITY, false, "SO_PRIORITY"},   {SO_MARK, false, "SO_MARK"},
    {SO_BUSY_POLL, false, "SO_BUSY_POLL"}, {SO_LOCK_FILTER, false, "SO_LOCK_FILTER"},
});

// What getsockopt(2) gives that is no setting, or is told by another option; to ask for SO_ERROR
// would take it away. Whatever is neither here nor above must be as at a new socket.
constexpr std::array kNoOptions{SO_ERROR,
                                SO_TYPE,
                                SO_PEERCRED,
                                SO_PEERNAME,
                                SO_PEERSEC,
                                SO_PROTOCOL,
                                SO_DOMAIN,
                                SO_COOKIE,
                                SO_MEMINFO,
                                SO_ACCEPTCONN,
                                SO_PEERGROUPS,
                                SO_INCOMING_CPU,
                                SO_INCOMING_NAPI_ID,
                                SO_GET_FILTER,
                                66 /* SO_RCVTIMEO_NEW */,
                                67 /* SO_SNDTIMEO_NEW */,
                                71 /* SO_NETNS_COOKIE */,
                                77 /* SO_PEERPIDFD */};
constexpr int kEndOfOptions = 128;

constexpr std::size_t kMostBytes = 16;  // A timeval.

struct NetworkOption {
  int level;
  int name;
};

// Of tcp(7), ip(7) and ipv6(7), those that a connected socket takes and that say something of its
// end alone. What they do to packets the real socket at home does, too.
constexpr int kInQueue = 36;       // TCP_INQ
constexpr int kReceiveClass = 66;  // IPV6_RECVTCLASS
constexpr std::array kNetworkOptions = std::to_array<NetworkOption>({
    {IPPROTO_TCP, TCP_NODELAY},
    {IPPROTO_TCP, TCP_CORK},
    {IPPROTO_TCP, TCP_KEEPIDLE},
    {IPPROTO_TCP, TCP_KEEPINTVL},
    {IPPROTO_TCP, TCP_KEEPCNT},
    {IPPROTO_TCP, TCP_SYNCNT},
    {IPPROTO_TCP, TCP_LINGER2},
    {IPPROTO_TCP, TCP_USER_TIMEOUT},
    {IPPROTO_TCP, TCP_NOTSENT_LOWAT},
    {IPPROTO_TCP, kInQueue},
    {IPPROTO_IP, IP_TOS},
    {SOL_SOCKET, SO_PRIORITY},  // After IP_TOS, which sets it.
    {IPPROTO_IP, IP_TTL},
    {IPPROTO_IP, IP_RECVERR},
    {IPPROTO_IP, IP_RECVTOS},
    {IPPROTO_IP, IP_RECVTTL},
    {IPPROTO_IP, IP_MTU_DISCOVER},
    {IPPROTO_IPV6, IPV6_TCLASS},
    {IPPROTO_IPV6, IPV6_UNICAST_HOPS},
    {IPPROTO_IPV6, IPV6_RECVERR},
    {IPPROTO_IPV6, IPV6_RECVPKTINFO},
    {IPPROTO_IPV6, kReceiveClass},
    {IPPROTO_IPV6, IPV6_MTU_DISCOVER},
});

// The same of one that is neither connected nor listens, to which the destination's kernel pays
// heed when it does.
constexpr int kBindNoPort = 24;          // IP_BIND_ADDRESS_NO_PORT
constexpr int kFastOpenConnect = 30;     // TCP_FASTOPEN_CONNECT
constexpr int kMulticastAll = 49;        // IP_MULTICAST_ALL
constexpr int kReceiveDestination = 74;  // IPV6_RECVORIGDSTADDR
constexpr int kUncheckedSend = 101;      // UDP_NO_CHECK6_TX
constexpr int kUncheckedReceive = 102;   // UDP_NO_CHECK6_RX
constexpr int kSegment = 103;            // UDP_SEGMENT
constexpr int kCoalesce = 104;           // UDP_GRO
constexpr std::array kOpenOptions = std::to_array<NetworkOption>({
    {IPPROTO_TCP, TCP_MAXSEG},
    {IPPROTO_TCP, TCP_DEFER_ACCEPT},
    {IPPROTO_TCP, kFastOpenConnect},
    {IPPROTO_IP, kBindNoPort},
    {IPPROTO_IP, IP_PKTINFO},
    {IPPROTO_IP, IP_RECVORIGDSTADDR},
    {IPPROTO_IP, IP_MULTICAST_TTL},
    {IPPROTO_IP, IP_MULTICAST_LOOP},
    {IPPROTO_IP, kMulticastAll},
    {IPPROTO_IPV6, IPV6_RECVHOPLIMIT},
    {IPPROTO_IPV6, IPV6_MULTICAST_HOPS},
    {IPPROTO_IPV6, IPV6_MULTICAST_LOOP},
    {IPPROTO_IPV6, kReceiveDestination},
    {IPPROTO_UDP, kUncheckedSend},
    {IPPROTO_UDP, kUncheckedReceive},
    {IPPROTO_UDP, kSegment},
    {IPPROTO_UDP, kCoalesce},
});

std::optional<std::string> read_option(int fd, int level, int name) {
  std::array<char, kMostBytes> value{};
  socklen_t size = value.size();
  if (::getsockopt(fd, level, name, value.data(), &size) != 0) {
    return std::nullopt;  // This kernel has no such option.
  }
  return std::string(value.data(), size);
}

// The kernel gives twice what was asked for (socket(7)).
std::string asked_for(const wire::SocketOption& option) {
  int doubled = 0;
  if (option.level() != SOL_SOCKET || (option.name() != SO_SNDBUF && option.name() != SO_RCVBUF)) {
    return option.value();
  }
  std::memcpy(&doubled, option.value().data(), std::min(sizeof(doubled), option.value().size()));
  const int half = doubled / 2;
  return {reinterpret_cast<const char*>(&half), sizeof(half)};
}

Error not_carried(std::string option) {
  return make_error(ErrorCode::kUnsupported, "carry the socket option", std::move(option));
}

}  // namespace

namespace {

// What the caller has found of those of SOL_SOCKET that differ from those of `fresh`.
Result<SocketOptions> changed_from(int fd, int fresh, std::span<const int> others) {
  socklen_t filter = 0;
  if (::getsockopt(fd, SOL_SOCKET, SO_GET_FILTER, nullptr, &filter) == 0 && filter != 0) {
    return fail(not_carried("SO_ATTACH_FILTER"));
  }
  SocketOptions changed;
  for (int name = 1; name < kEndOfOptions; ++name) {
    const auto* const known = std::ranges::find(kOptions, name, &KnownOption::name);
    if (std::ranges::find(kNoOptions, name) != kNoOptions.end() ||
        std::ranges::find(others, name) != others.end()) {
      continue;
    }
    auto value = read_option(fd, SOL_SOCKET, name);
    if (!value || value == read_option(fresh, SOL_SOCKET, name)) {
      continue;
    }
    if (known == kOptions.end() || !known->is_carried) {
      return fail(
          not_carried(known == kOptions.end() ? "number " + std::to_string(name) : known->text));
    }
    wire::SocketOption& kept = *changed.Add();
    kept.set_level(SOL_SOCKET);
    kept.set_name(static_cast<std::uint32_t>(name));
    kept.set_value(std::move(*value));
  }
  return changed;
}

// Where it is among all that are carried; as many as there are: nowhere.
std::size_t rank_of(const wire::SocketOption& option) {
  const auto is_it = [&](const NetworkOption& each) {
    return static_cast<std::uint32_t>(each.level) == option.level() &&
           static_cast<std::uint32_t>(each.name) == option.name();
  };
  const auto network = std::ranges::find_if(kNetworkOptions, is_it);
  const auto general = std::ranges::find_if(kOptions, [&](const KnownOption& each) {
    return option.level() == SOL_SOCKET && each.is_carried &&
           static_cast<std::uint32_t>(each.name) == option.name();
  });
  if (general != kOptions.end()) {
    return static_cast<std::size_t>(general - kOptions.begin());
  }
  if (network != kNetworkOptions.end()) {
    return kOptions.size() + static_cast<std::size_t>(network - kNetworkOptions.begin());
  }
  return kOptions.size() + kNetworkOptions.size() +
         static_cast<std::size_t>(std::ranges::find_if(kOpenOptions, is_it) - kOpenOptions.begin());
}

// Of those in the table, what `fd` has otherwise than `fresh`.
void add_changed(int fd, int fresh, std::span<const NetworkOption> table, SocketOptions& changed) {
  for (const NetworkOption& each : table) {
    auto value = read_option(fd, each.level, each.name);
    if (!value || value == read_option(fresh, each.level, each.name)) {
      continue;
    }
    wire::SocketOption& kept = *changed.Add();
    kept.set_level(static_cast<std::uint32_t>(each.level));
    kept.set_name(static_cast<std::uint32_t>(each.name));
    kept.set_value(std::move(*value));
  }
}

Result<SocketOptions> changed_from_new(int fd, const UniqueFd& fresh) {
  constexpr int kTransmitHash = 74;  // SO_TXREHASH, which connecting sets.
  if (!fresh.valid()) {
    return fail(system_error("make a socket"));
  }
  std::vector<int> others{kTransmitHash, SO_PRIORITY};
  int locked = 0;
  socklen_t size = sizeof(locked);
  ::getsockopt(fd, SOL_SOCKET, kBufferLock, &locked, &size);
  constexpr int kSendLocked = 1;
  constexpr int kReceiveLocked = 2;
  if ((locked & kSendLocked) == 0) {
    others.push_back(SO_SNDBUF);
  }
  if ((locked & kReceiveLocked) == 0) {
    others.push_back(SO_RCVBUF);
  }
  SocketOptions changed = MIGRATE_TRY(changed_from(fd, fresh.get(), others));
  add_changed(fd, fresh.get(), kNetworkOptions, changed);
  return changed;
}

}  // namespace

Result<SocketOptions> changed_options(int fd, int type) {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    return fail(system_error("make a socket pair"));
  }
  const UniqueFd fresh(ends[0]);
  const UniqueFd other(ends[1]);
  return changed_from(fd, fresh.get(), {});
}

Result<SocketOptions> changed_tcp_options(int fd, int family) {
  return changed_from_new(fd, UniqueFd(::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0)));
}

Result<SocketOptions> changed_open_options(int fd, int family, int type) {
  const UniqueFd fresh(::socket(family, type | SOCK_CLOEXEC, 0));
  SocketOptions changed = MIGRATE_TRY(changed_from_new(fd, fresh));
  add_changed(fd, fresh.get(), kOpenOptions, changed);
  return changed;
}

Result<void> set_options(int fd, const SocketOptions& options) {
  std::vector<wire::SocketOption> sorted(options.begin(), options.end());
  std::ranges::sort(sorted, {}, rank_of);
  for (const wire::SocketOption& option : sorted) {
    const std::string value = asked_for(option);
    if (::setsockopt(fd, static_cast<int>(option.level()), static_cast<int>(option.name()),
                     value.data(), static_cast<socklen_t>(value.size())) != 0) {
      return fail(system_error("set a socket option", "number " + std::to_string(option.name())));
    }
  }
  return {};
}

bool are_sound(const SocketOptions& options) {
  return std::ranges::all_of(options, [](const wire::SocketOption& option) {
    return rank_of(option) < kOptions.size() + kNetworkOptions.size() + kOpenOptions.size() &&
           option.value().size() <= kMostBytes;
  });
}

}  // namespace migrate::carriers
