#include "libmigrate/links/tcp_socket.h"

#include <arpa/inet.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>

#include "base/network_namespace.h"

namespace migrate {
namespace {

constexpr std::string_view kMappedPrefix("\0\0\0\0\0\0\0\0\0\0\xff\xff", 12);

using NameCall = int (*)(int, sockaddr*, socklen_t*);

Result<SocketName> name_by(NameCall call, int fd, const char* operation) {
  sockaddr_storage storage{};
  socklen_t size = sizeof(storage);
  if (call(fd, reinterpret_cast<sockaddr*>(&storage), &size) != 0) {
    Error error = system_error(operation);
    error.code = errno == ENOTCONN ? ErrorCode::kNotFound : error.code;
    return fail(std::move(error));
  }
  auto name = SocketName::from_bytes({reinterpret_cast<const char*>(&storage), size});
  if (!name) {
    return fail(make_error(ErrorCode::kUnsupported, operation, "a socket of another family"));
  }
  return name;
}

}  // namespace

Result<SocketName> SocketName::from_bytes(std::string_view bytes) {
  sa_family_t family = AF_UNSPEC;
  if (bytes.size() >= sizeof(family)) {
    std::memcpy(&family, bytes.data(), sizeof(family));
  }
  if (!(family == AF_INET && bytes.size() == sizeof(sockaddr_in)) &&
      !(family == AF_INET6 && bytes.size() == sizeof(sockaddr_in6))) {
    return fail(make_error(ErrorCode::kCorrupt, "read", "an internet address"));
  }
  SocketName name;
  name.bytes_ = bytes;
  return name;
}

SocketName SocketName::of_address(std::string_view address, std::uint16_t port) {
  sockaddr_in four{};
  sockaddr_in6 six{};
  four.sin_family = AF_INET;
  four.sin_port = htons(port);
  six.sin6_family = AF_INET6;
  six.sin6_port = htons(port);
  SocketName name;
  if (address.size() == sizeof(four.sin_addr)) {
    std::memcpy(&four.sin_addr, address.data(), sizeof(four.sin_addr));
    name.bytes_ = std::string(reinterpret_cast<const char*>(&four), sizeof(four));
  } else {
    std::memcpy(&six.sin6_addr, address.data(), std::min(address.size(), sizeof(six.sin6_addr)));
    name.bytes_ = std::string(reinterpret_cast<const char*>(&six), sizeof(six));
  }
  return name;
}

Result<SocketName> SocketName::of(int fd) {
  return name_by(::getsockname, fd, "getsockname");
}

Result<SocketName> SocketName::of_peer(int fd) {
  return name_by(::getpeername, fd, "getpeername");
}

// At the same place in both.
std::uint16_t SocketName::port() const {
  sockaddr_in name{};
  std::memcpy(&name, bytes_.data(), std::min(sizeof(name), bytes_.size()));
  return ntohs(name.sin_port);
}

std::string_view SocketName::address_bytes() const {
  const std::string_view all = bytes_;
  return family() == AF_INET ? all.substr(offsetof(sockaddr_in, sin_addr), sizeof(in_addr))
                             : all.substr(offsetof(sockaddr_in6, sin6_addr), sizeof(in6_addr));
}

std::string SocketName::to_string() const {
  std::array<char, INET6_ADDRSTRLEN> text{};
  const bool is_four = family() == AF_INET;
  ::inet_ntop(family(), address_bytes().data(), text.data(), text.size());
  const std::string port_text = ":" + std::to_string(port());
  return is_four ? text.data() + port_text : "[" + std::string(text.data()) + "]" + port_text;
}

bool SocketName::is_link_local() const {
  if (family() != AF_INET6) {
    return false;
  }
  sockaddr_in6 name{};
  std::memcpy(&name, bytes_.data(), sizeof(name));
  return IN6_IS_ADDR_LINKLOCAL(&name.sin6_addr) || name.sin6_scope_id != 0;
}

bool SocketName::is_loopback() const {
  constexpr char kLoopbackNet = 127;
  const std::string_view address = address_bytes();
  return family() == AF_INET ? address[0] == kLoopbackNet
                             : std::memcmp(address.data(), &in6addr_loopback, address.size()) == 0;
}

bool SocketName::is_any() const {
  return address_bytes() == none_of(family()).address_bytes();
}

SocketName SocketName::loopback(std::uint16_t port) {
  sockaddr_in four{};
  four.sin_family = AF_INET;
  four.sin_port = htons(port);
  four.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  SocketName name;
  name.bytes_ = std::string(reinterpret_cast<const char*>(&four), sizeof(four));
  return name;
}

SocketName SocketName::none_of(int family) {
  sockaddr_in four{};
  sockaddr_in6 six{};
  four.sin_family = AF_INET;
  six.sin6_family = AF_INET6;
  SocketName name;
  name.bytes_ = family == AF_INET ? std::string(reinterpret_cast<const char*>(&four), sizeof(four))
                                  : std::string(reinterpret_cast<const char*>(&six), sizeof(six));
  return name;
}

SocketName SocketName::nobody_beside(const SocketName& local, std::uint16_t port) {
  if (local.family() == AF_INET) {
    return loopback(port);
  }
  sockaddr_in6 six{};
  std::memcpy(&six, local.bytes_.data(), sizeof(six));
  six.sin6_port = htons(port);
  if (IN6_IS_ADDR_V4MAPPED(&six.sin6_addr)) {
    const in_addr_t four = htonl(INADDR_LOOPBACK);
    std::memcpy(&six.sin6_addr.s6_addr[12], &four, sizeof(four));
  } else {
    six.sin6_addr = in6addr_loopback;
  }
  SocketName name;
  name.bytes_ = std::string(reinterpret_cast<const char*>(&six), sizeof(six));
  return name;
}

SocketName SocketName::unmapped() const {
  const std::string_view address = address_bytes();
  return family() == AF_INET6 && address.starts_with(kMappedPrefix)
             ? of_address(address.substr(kMappedPrefix.size()), port())
             : *this;
}

SocketName SocketName::mapped() const {
  return family() == AF_INET
             ? of_address(std::string(kMappedPrefix) + std::string(address_bytes()), port())
             : *this;
}

Result<TcpInfo> read_tcp_info(int fd) {
  TcpInfo info{};
  socklen_t size = sizeof(info);
  if (::getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) != 0) {
    return fail(system_error("read TCP_INFO"));
  }
  return info;
}

Result<bool> is_elsewhere(int socket, pid_t process) {
  const UniqueFd space = MIGRATE_TRY(network_namespace_of(socket));
  struct stat of_socket {};
  struct stat of_process {};
  if (::fstat(space.get(), &of_socket) != 0 ||
      ::stat(("/proc/" + std::to_string(process) + "/ns/net").c_str(), &of_process) != 0) {
    return fail(
        system_error("find the network namespace of", "process " + std::to_string(process)));
  }
  return of_socket.st_ino != of_process.st_ino || of_socket.st_dev != of_process.st_dev;
}

Result<std::uint64_t> cookie_of(int fd) {
  std::uint64_t cookie = 0;
  socklen_t size = sizeof(cookie);
  if (::getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &size) != 0) {
    return fail(system_error("read SO_COOKIE"));
  }
  return cookie;
}

Result<TcpCounts> count_bytes(int fd) {
  for (;;) {
    const TcpInfo before = MIGRATE_TRY(read_tcp_info(fd));
    int unread = 0;
    int unconfirmed = 0;
    if (::ioctl(fd, SIOCINQ, &unread) != 0 || ::ioctl(fd, SIOCOUTQ, &unconfirmed) != 0) {
      return fail(system_error("count the bytes of a connection"));
    }
    const TcpInfo after = MIGRATE_TRY(read_tcp_info(fd));
    if (before.bytes_received != after.bytes_received || before.bytes_acked != after.bytes_acked ||
        before.state() != after.state()) {
      continue;  // Something came or was confirmed in between.
    }
    // The end of either direction counts as a byte, but not among those that are unread.
    pollfd polled{fd, POLLRDHUP, 0};
    const bool is_over = after.state() == TCP_CLOSE && ::poll(&polled, 1, 0) > 0;
    if (is_over && (polled.revents & POLLRDHUP) == 0) {
      return TcpCounts{};
    }
    const bool has_ended_by_both = is_over && (polled.revents & POLLERR) == 0;
    const std::uint64_t end_in = has_ended_by_both || has_received_end(after.state()) ? 1 : 0;
    const std::uint64_t end_out = has_ended_by_both || has_sent_end(after.state()) ? 1 : 0;
    TcpCounts counts;
    counts.unread = static_cast<std::uint64_t>(unread);
    counts.unconfirmed = static_cast<std::uint64_t>(unconfirmed);
    counts.taken = after.bytes_received - end_in - counts.unread;
    counts.given = after.bytes_acked + counts.unconfirmed - end_out;
    return counts;
  }
}

bool has_received_end(std::uint8_t state) {
  return state == TCP_CLOSE_WAIT || state == TCP_LAST_ACK || state == TCP_CLOSING ||
         state == TCP_TIME_WAIT;
}

bool has_sent_end(std::uint8_t state) {
  return state == TCP_FIN_WAIT1 || state == TCP_FIN_WAIT2 || state == TCP_CLOSING ||
         state == TCP_LAST_ACK || state == TCP_TIME_WAIT;
}

}  // namespace migrate
