#include "transport/address.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <memory>

#include "transport/page_transport.h"

namespace migrate {
namespace {

bool is_ipv6(const std::string& host) {
  // A scope ("%eth0") is not part of what inet_pton knows.
  const std::string address = host.substr(0, host.find('%'));
  in6_addr unused{};
  return ::inet_pton(AF_INET6, address.c_str(), &unused) == 1;
}

tl::unexpected<Error> malformed(std::string_view text, std::string remedy) {
  return fail(
      make_error(ErrorCode::kInvalid, "parse address", std::string(text), std::move(remedy)));
}

Result<std::uint16_t> parse_port(std::string_view text, std::string_view digits) {
  std::uint16_t port = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), port);
  if (digits.empty() || error != std::errc() || end != digits.data() + digits.size()) {
    return malformed(text, "the port must be a number from 0 to 65535");
  }
  return port;
}

/// "tcp://, tls:// or rdma://".
std::string all_schemes() {
  std::string schemes = "tcp://, tls://";
  const auto transports = page_transports();
  for (const PageTransport* const each : transports) {
    schemes += std::string(each == transports.back() ? " or " : ", ") + each->word + "://";
  }
  return schemes;
}

bool valid_host(std::string_view host) {
  return !host.empty() && std::all_of(host.begin(), host.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           std::string_view(".-_:%").find(c) != std::string_view::npos;
  });
}

template <class T>
T socket_address_as(const SocketAddress& address) {
  T value;
  std::memcpy(&value, &address.storage, sizeof value);
  return value;
}

}  // namespace

const sockaddr* SocketAddress::get() const {
  return reinterpret_cast<const sockaddr*>(&storage);
}

std::string SocketAddress::to_string() const {
  std::array<char, INET6_ADDRSTRLEN> text{};
  if (storage.ss_family == AF_INET) {
    return host() + ":" + std::to_string(port());
  }
  if (storage.ss_family == AF_INET6) {
    const auto v6 = socket_address_as<sockaddr_in6>(*this);
    ::inet_ntop(AF_INET6, &v6.sin6_addr, text.data(), text.size());
    return "[" + std::string(text.data()) + "]:" + std::to_string(port());
  }
  return "unknown";
}

std::string SocketAddress::host() const {
  std::array<char, INET6_ADDRSTRLEN> text{};
  if (storage.ss_family == AF_INET) {
    const auto v4 = socket_address_as<sockaddr_in>(*this);
    return ::inet_ntop(AF_INET, &v4.sin_addr, text.data(), text.size());
  }
  if (storage.ss_family == AF_INET6) {
    const auto v6 = socket_address_as<sockaddr_in6>(*this);
    if (IN6_IS_ADDR_V4MAPPED(&v6.sin6_addr)) {
      return ::inet_ntop(AF_INET, &v6.sin6_addr.s6_addr[12], text.data(), text.size());
    }
    return ::inet_ntop(AF_INET6, &v6.sin6_addr, text.data(), text.size());
  }
  return "unknown";
}

bool SocketAddress::is_loopback() const {
  if (storage.ss_family == AF_INET) {
    return (ntohl(socket_address_as<sockaddr_in>(*this).sin_addr.s_addr) >> 24U) == 127;
  }
  if (storage.ss_family == AF_INET6) {
    const in6_addr v6 = socket_address_as<sockaddr_in6>(*this).sin6_addr;
    const bool mapped = IN6_IS_ADDR_V4MAPPED(&v6);
    return (mapped && v6.s6_addr[12] == 127) || IN6_IS_ADDR_LOOPBACK(&v6);
  }
  return false;
}

std::uint16_t SocketAddress::port() const {
  if (storage.ss_family == AF_INET) {
    return ntohs(socket_address_as<sockaddr_in>(*this).sin_port);
  }
  if (storage.ss_family == AF_INET6) {
    return ntohs(socket_address_as<sockaddr_in6>(*this).sin6_port);
  }
  return 0;
}

Result<Address> Address::parse(std::string_view text, std::uint16_t default_port) {
  Address address;
  address.port = default_port;
  std::string_view rest = text;
  if (const auto colon = rest.find("://"); colon != std::string_view::npos) {
    address.scheme = rest.substr(0, colon);
    rest.remove_prefix(colon + 3);
    if (address.scheme != "tcp" && address.scheme != "tls" &&
        find_page_transport(address.scheme) == nullptr) {
      return malformed(text, "the scheme must be " + all_schemes());
    }
  }
  std::string_view port_part;  // with its colon
  if (rest.starts_with('[')) {
    const auto end = rest.find(']');
    if (end == std::string_view::npos) {
      return malformed(text, "the closing ] is missing");
    }
    address.host = rest.substr(1, end - 1);
    port_part = rest.substr(end + 1);
    if (!is_ipv6(address.host)) {
      return malformed(text, "inside [ ] there must be an IPv6 address");
    }
  } else if (is_ipv6(std::string(rest))) {
    address.host = rest;
  } else {
    const auto colon = std::min(rest.find(':'), rest.size());
    address.host = rest.substr(0, colon);
    port_part = rest.substr(colon);
  }
  if (!valid_host(address.host)) {
    return malformed(text, "write [SCHEME://]HOST[:PORT], IPv6 addresses with a port in [ ]");
  }
  if (!port_part.empty()) {
    if (!port_part.starts_with(':')) {
      return malformed(text, "after ] there may only be :PORT");
    }
    address.port = MIGRATE_TRY(parse_port(text, port_part.substr(1)));
  }
  return address;
}

std::string Address::to_string() const {
  const bool bracket = host.find(':') != std::string::npos;
  return scheme + "://" + (bracket ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

Result<std::vector<SocketAddress>> Address::resolve(bool passive) const {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = passive ? AI_PASSIVE : 0;
  addrinfo* found = nullptr;
  const std::string service = std::to_string(port);
  const int status = ::getaddrinfo(host.c_str(), service.c_str(), &hints, &found);
  if (status == EAI_SYSTEM) {
    return fail(system_error("resolve host", host));
  }
  if (status != 0) {
    const bool busy = status == EAI_AGAIN;
    return fail(make_error(
        busy ? ErrorCode::kRetry : ErrorCode::kNotFound, "resolve host", host,
        std::string(::gai_strerror(status)) + "; check the name or use the " + "numeric address"));
  }
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> guard(found, &::freeaddrinfo);
  std::vector<SocketAddress> addresses;
  for (const addrinfo* entry = found; entry != nullptr; entry = entry->ai_next) {
    SocketAddress& address = addresses.emplace_back();
    address.length = entry->ai_addrlen;
    std::memcpy(&address.storage, entry->ai_addr, entry->ai_addrlen);
  }
  return addresses;
}

Result<bool> Address::is_loopback() const {
  const auto addresses = MIGRATE_TRY(resolve());
  return std::all_of(addresses.begin(), addresses.end(),
                     [](const SocketAddress& address) { return address.is_loopback(); });
}

std::string peer_name(int fd) {
  SocketAddress peer;
  peer.length = sizeof peer.storage;
  if (::getpeername(fd, reinterpret_cast<sockaddr*>(&peer.storage), &peer.length) != 0 ||
      (peer.storage.ss_family != AF_INET && peer.storage.ss_family != AF_INET6)) {
    return "unknown peer";
  }
  return "tcp://" + peer.to_string();
}

}  // namespace migrate
