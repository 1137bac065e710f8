// What is true of all sockets of TCP and UDP.
#include "libmigrate/carriers/internal/network_socket.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <string>

#include "libmigrate/carriers/internal/relayed.h"

namespace migrate::carriers {
namespace {

constexpr int kUpperProtocol = 31;  // TCP_ULP

// What keeps a socket that is none of Unix domain from being carried at all.
Reason reason_of_kind(int fd) {
  const int domain = number_of(fd, SOL_SOCKET, SO_DOMAIN);
  const int type = number_of(fd, SOL_SOCKET, SO_TYPE);
  const int protocol = number_of(fd, SOL_SOCKET, SO_PROTOCOL);
  if (domain != AF_INET && domain != AF_INET6) {
    return {"SOCKET_KIND", domain == AF_NETLINK  ? "netlink"
                           : domain == AF_PACKET ? "packet"
                                                 : "family " + std::to_string(domain)};
  }
  if (type == SOCK_RAW || (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP)) {
    return {"SOCKET_KIND", type == SOCK_RAW            ? "raw"
                           : protocol == IPPROTO_MPTCP ? "MPTCP"
                                                       : "protocol " + std::to_string(protocol)};
  }
  std::array<char, 16> above{};
  socklen_t size = above.size();
  if (::getsockopt(fd, IPPROTO_TCP, kUpperProtocol, above.data(), &size) == 0 && size > 0 &&
      above[0] != '\0') {
    return {"SOCKET_KIND", "the kernel speaks " + std::string(above.data()) + " on it"};
  }
  return {};
}

Reason reason_of_settings(int fd) {
  std::array<char, 16> interface {};
  socklen_t size = interface.size();
  if (::getsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, interface.data(), &size) == 0 && size > 1) {
    return {"SOCKET_SETTING", "SO_BINDTODEVICE"};
  }
  if (::fcntl(fd, F_GETOWN) != 0) {
    return {"SOCKET_SETTING", "F_SETOWN"};
  }
  return {};
}

}  // namespace

int number_of(int fd, int level, int name) {
  int value = -1;
  socklen_t size = sizeof(value);
  return ::getsockopt(fd, level, name, &value, &size) == 0 ? value : -1;
}

bool is_listening(const FindContext& context, const Sighting& seen) {
  const UniqueFd fd = context.fetch(seen.number);
  return fd.valid() && number_of(fd.get(), SOL_SOCKET, SO_ACCEPTCONN) == 1;
}

// One that has been connected has an end, or was told bytes of: what the kernel counts is gone when
// the program has disconnected it (AF_UNSPEC).
bool is_open_socket(const FindContext& context, const Sighting& seen) {
  const UniqueFd fd = context.fetch(seen.number);
  if (!fd.valid() || is_known_relay(context, seen)) {
    return false;
  }
  const int domain = number_of(fd.get(), SOL_SOCKET, SO_DOMAIN);
  const int protocol = number_of(fd.get(), SOL_SOCKET, SO_PROTOCOL);
  if (domain != AF_INET && domain != AF_INET6) {
    return false;
  }
  if (protocol != IPPROTO_TCP) {
    return protocol == IPPROTO_UDP && number_of(fd.get(), SOL_SOCKET, SO_TYPE) == SOCK_DGRAM;
  }
  const auto info = read_tcp_info(fd.get());
  pollfd polled{fd.get(), POLLRDHUP, 0};
  return info && info->state() == TCP_CLOSE && info->bytes_acked == 0 &&
         info->bytes_received == 0 && ::poll(&polled, 1, 0) >= 0 &&
         (polled.revents & POLLRDHUP) == 0 &&
         !(context.is_guest() && is_elsewhere(fd.get(), context.process()).value_or(false));
}

bool find_network_socket(FindContext& context, const Sighting& seen, const UniqueFd& fd) {
  if (!fd.valid()) {
    return context.refuse("SOCKET_KIND", seen, "it cannot be looked at");
  }
  for (const auto reason_of : {reason_of_kind, reason_of_settings}) {
    if (const Reason reason = reason_of(fd.get()); !reason.code.empty()) {
      return context.refuse(reason.code, seen, reason.detail);
    }
  }
  return true;
}

std::optional<TcpInfo> find_tcp_socket(FindContext& context, const Sighting& seen,
                                       const UniqueFd& fd) {
  if (!find_network_socket(context, seen, fd)) {
    return std::nullopt;
  }
  auto info = read_tcp_info(fd.get());
  if (!info) {
    context.refuse("SOCKET_KIND", seen, "it cannot be looked at");
    return std::nullopt;
  }
  return *info;
}

}  // namespace migrate::carriers
