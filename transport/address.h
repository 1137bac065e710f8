#pragma once

#include <sys/socket.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace migrate {

/// The port of a daemon whose address names none.
inline constexpr std::uint16_t kDefaultPort = 7070;

/// One address in the kernel's form. A value type.
struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t length = 0;

  const sockaddr* get() const;
  /// "127.0.0.1:7070" or "[::1]:7070"; "unknown" for families other than IPv4 and IPv6.
  std::string to_string() const;
  /// 127.0.0.0/8, ::1, and the former mapped into IPv6.
  bool is_loopback() const;
  std::uint16_t port() const;
  /// "127.0.0.1" or "::1"; IPv4 mapped into IPv6 as IPv4; "unknown" for other families.
  std::string host() const;
};

/// Where a daemon listens: `tcp://HOST:PORT`, `HOST:PORT`, `HOST`, `[v6]:PORT`, `v6`. A value type.
struct Address {
  std::string scheme = "tcp";  ///< "tcp", "tls" or that of a transport of pages.
  std::string host;            ///< Name or numeric address, without brackets.
  std::uint16_t port = kDefaultPort;

  /// Errors: kInvalid, with what is wrong as the remedy.
  static Result<Address> parse(std::string_view text, std::uint16_t default_port = kDefaultPort);

  /// The form that parse() reads back, always with scheme and port.
  std::string to_string() const;

  /// Every stream address of the host, in the resolver's order. `passive` is for listening.
  /// Blocks: on the system's resolver. Errors: kNotFound (no such host), kRetry (resolver busy).
  Result<std::vector<SocketAddress>> resolve(bool passive = false) const;

  /// Whether all addresses of the host are loopback addresses, so that no one outside this
  /// machine can be meant. Blocks and fails as resolve().
  Result<bool> is_loopback() const;

  /// Whether the host stands for all addresses of this machine: "0.0.0.0" or "::".
  bool is_any() const { return host == "0.0.0.0" || host == "::"; }

  bool operator==(const Address&) const = default;
};

/// The peer of a connected socket as "tcp://ADDRESS:PORT"; "unknown peer" if there is none.
std::string peer_name(int fd);

}  // namespace migrate
