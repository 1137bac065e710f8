#include "transport/peer_origin.h"

#include <arpa/inet.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>

namespace migrate {
namespace {

constexpr std::uint16_t kFirstFreePort = 1024;

/// Copies the address as a sockid holds it: IPv4 in its first word.
void copy_address(const SocketAddress& address, __be32 (&words)[4]) {
  if (address.storage.ss_family == AF_INET6) {
    sockaddr_in6 v6{};
    std::memcpy(&v6, &address.storage, sizeof v6);
    std::memcpy(words, &v6.sin6_addr, sizeof v6.sin6_addr);
  } else {
    sockaddr_in v4{};
    std::memcpy(&v4, &address.storage, sizeof v4);
    words[0] = v4.sin_addr.s_addr;
  }
}

/// One host has as many addresses of IPv6 as it likes, within its network.
std::string network_of(const SocketAddress& address) {
  sockaddr_in6 v6{};
  std::memcpy(&v6, &address.storage, sizeof v6);
  if (address.storage.ss_family != AF_INET6 || IN6_IS_ADDR_V4MAPPED(&v6.sin6_addr)) {
    return address.host();
  }
  std::fill(std::begin(v6.sin6_addr.s6_addr) + 8, std::end(v6.sin6_addr.s6_addr), 0);
  std::array<char, INET6_ADDRSTRLEN> text{};
  ::inet_ntop(AF_INET6, &v6.sin6_addr, text.data(), text.size());
  return std::string(text.data()) + "/64";
}

}  // namespace

Result<PeerOrigins> PeerOrigins::create() {
  UniqueFd netlink(
      ::socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_SOCK_DIAG));
  if (!netlink.valid() && errno != EPROTONOSUPPORT) {
    return fail(system_error("open a socket for", "NETLINK_SOCK_DIAG"));
  }
  return PeerOrigins(std::move(netlink));
}

std::optional<uid_t> PeerOrigins::owner(const SocketAddress& peer, const SocketAddress& own) const {
  struct {
    nlmsghdr header;
    inet_diag_req_v2 body;
  } request{};
  request.header.nlmsg_len = sizeof request;
  request.header.nlmsg_type = SOCK_DIAG_BY_FAMILY;
  request.header.nlmsg_flags = NLM_F_REQUEST;
  request.body.sdiag_family = static_cast<__u8>(peer.storage.ss_family);
  request.body.sdiag_protocol = IPPROTO_TCP;
  request.body.idiag_states = ~0U;
  request.body.id.idiag_sport = htons(peer.port());
  request.body.id.idiag_dport = htons(own.port());
  copy_address(peer, request.body.id.idiag_src);
  copy_address(own, request.body.id.idiag_dst);
  request.body.id.idiag_cookie[0] = request.body.id.idiag_cookie[1] = INET_DIAG_NOCOOKIE;
  // The kernel has answered when send() returns: an error, or the one socket.
  struct {
    nlmsghdr header;
    inet_diag_msg body;
    std::array<std::byte, 1024> attributes;
  } answer{};
  if (::send(netlink_.get(), &request, sizeof request, 0) < 0 ||
      ::recv(netlink_.get(), &answer, sizeof answer, 0) <
          static_cast<ssize_t>(offsetof(decltype(answer), attributes)) ||
      answer.header.nlmsg_type != SOCK_DIAG_BY_FAMILY) {
    return std::nullopt;
  }
  // A listener of this port is found too; and a socket that nobody has open any more seems root's.
  const bool connected = answer.body.idiag_state != TCP_LISTEN && answer.body.idiag_inode != 0;
  return connected ? std::optional(answer.body.idiag_uid) : std::nullopt;
}

PeerOrigin PeerOrigins::of(int fd) const {
  SocketAddress peer;
  SocketAddress own;
  peer.length = own.length = sizeof peer.storage;
  PeerOrigin origin;
  if (::getpeername(fd, reinterpret_cast<sockaddr*>(&peer.storage), &peer.length) != 0 ||
      ::getsockname(fd, reinterpret_cast<sockaddr*>(&own.storage), &own.length) != 0) {
    origin.host = origin.group = "unknown";
    return origin;
  }
  origin.host = peer.host();
  if (const auto user = owner(peer, own)) {
    origin.group = "user " + std::to_string(*user);
    origin.is_local = true;
    origin.is_root = *user == 0;
    return origin;
  }
  origin.is_root = peer.port() != 0 && peer.port() < kFirstFreePort;
  origin.group = (origin.is_root ? "root of " : "") + network_of(peer);
  return origin;
}

}  // namespace migrate
