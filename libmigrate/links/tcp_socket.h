#pragma once

#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/types.h>

#include <compare>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace migrate {

/// An internet address with its port: a sockaddr_in or sockaddr_in6, byte by byte.
class SocketName {
 public:
  SocketName() = default;
  /// Errors: kCorrupt (neither of both).
  static Result<SocketName> from_bytes(std::string_view bytes);
  /// Of 4 or 16 bytes, as they are sent.
  static SocketName of_address(std::string_view address, std::uint16_t port);
  /// Of this end, or of the other. Errors: kNotFound (it has none), kUnsupported (of another
  /// family), kSystem.
  static Result<SocketName> of(int fd);
  static Result<SocketName> of_peer(int fd);

  const std::string& to_bytes() const { return bytes_; }
  const sockaddr* address() const { return reinterpret_cast<const sockaddr*>(bytes_.data()); }
  socklen_t size() const { return static_cast<socklen_t>(bytes_.size()); }
  int family() const { return address()->sa_family; }
  std::uint16_t port() const;
  /// Without the port: 4 or 16 bytes, as they are sent. Borrowed.
  std::string_view address_bytes() const;
  /// "10.0.0.1:80", "[::1]:80"
  std::string to_string() const;
  /// Of IPv6: one that needs an interface to mean something.
  bool is_link_local() const;
  /// 127.0.0.0/8, ::1
  bool is_loopback() const;
  /// 0.0.0.0, ::
  bool is_any() const;
  /// 127.0.0.1.
  static SocketName loopback(std::uint16_t port);
  /// No address, and no port.
  static SocketName none_of(int family);
  /// A name that can be the peer of `local`, for one that has none any more; another for each
  /// `port`.
  static SocketName nobody_beside(const SocketName& local, std::uint16_t port);
  /// The same in version 4, if it is an address of that in version 6 (::ffff:10.0.0.1); else
  /// itself.
  SocketName unmapped() const;
  /// The other way round, for a socket of version 6.
  SocketName mapped() const;
  auto operator<=>(const SocketName& other) const = default;

 private:
  std::string bytes_;
};

/// TCP_INFO as far as it is used here: <netinet/tcp.h> has not all that <linux/tcp.h> has, and the
/// two do not go together.
struct TcpInfo {
  tcp_info first{};
  std::uint64_t pacing_rate = 0;
  std::uint64_t most_pacing_rate = 0;
  std::uint64_t bytes_acked = 0;
  std::uint64_t bytes_received = 0;

  std::uint8_t state() const { return first.tcpi_state; }  ///< TCP_ESTABLISHED and so on.
};
/// Errors: kSystem.
Result<TcpInfo> read_tcp_info(int fd);

/// Whether a socket is in another network namespace than the process. Errors: kSystem.
Result<bool> is_elsewhere(int socket, pid_t process);

/// What tells a socket from all others that this host has or had since it was started (SO_COOKIE).
/// Errors: kSystem.
Result<std::uint64_t> cookie_of(int fd);

/// What the kernel has counted of a TCP connection since it was made. Only differences of two
/// counts of one socket mean something.
struct TcpCounts {
  std::uint64_t taken = 0;  ///< Bytes that were read from it.
  std::uint64_t given = 0;  ///< Bytes that were written to it.
  std::uint64_t unread = 0;
  std::uint64_t unconfirmed = 0;  ///< Written, and not confirmed by the other end's kernel.
};

/// Exact also while bytes come and go, if urgent data is read in line. When a connection was reset,
/// an end that had been received or sent before counts as a byte, too. Nothing counts any more of
/// a socket that this host has reset. Errors: kSystem.
Result<TcpCounts> count_bytes(int fd);

/// Whether in `state` of TCP the other end (this end) has said that no more comes.
bool has_received_end(std::uint8_t state);
bool has_sent_end(std::uint8_t state);

}  // namespace migrate
