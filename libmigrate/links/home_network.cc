#include "libmigrate/links/home_network.h"

#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "base/unique_fd.h"
#include "libmigrate/links/tcp_socket.h"

namespace migrate {
namespace {

constexpr int kMostAddresses = 64;

std::string bytes_of(const sockaddr* address) {
  const std::size_t size = address == nullptr               ? 0
                           : address->sa_family == AF_INET  ? sizeof(sockaddr_in)
                           : address->sa_family == AF_INET6 ? sizeof(sockaddr_in6)
                                                            : 0;
  return size == 0 ? std::string() : std::string(reinterpret_cast<const char*>(address), size);
}

unsigned ones_in(const SocketName& mask) {
  unsigned ones = 0;
  for (const char byte : mask.address_bytes()) {
    ones += static_cast<unsigned>(std::popcount(static_cast<unsigned char>(byte)));
  }
  return ones;
}

// By which own address it would send to one that is far away; nothing is sent.
std::string usual_address(int family) {
  constexpr std::uint16_t kAny = 9;
  const std::string far = family == AF_INET
                              ? std::string("\xC0\x00\x02\x01", 4)
                              : std::string("\x20\x01\x0D\xB8\0\0\0\0\0\0\0\0\0\0\0\x01", 16);
  const UniqueFd fd(::socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const SocketName name = SocketName::of_address(far, kAny);
  if (!fd.valid() || ::connect(fd.get(), name.address(), name.size()) != 0) {
    return {};
  }
  const auto own = SocketName::of(fd.get());
  return own ? std::string(own->address_bytes()) : std::string();
}

// No other can be given to an interface: they mean no host, or many.
bool is_of_one_host(const SocketName& name) {
  constexpr unsigned char kMulticastSix = 0xFF;
  constexpr unsigned char kMulticast = 224;
  constexpr unsigned char kAfterMulticast = 240;
  const std::string_view address = name.address_bytes();
  const auto first = static_cast<unsigned char>(address[0]);
  return name.family() == AF_INET6
             ? !name.is_any() && first != kMulticastSix
             : first != 0 && (first < kMulticast || first >= kAfterMulticast) &&
                   address != "\xFF\xFF\xFF\xFF";
}

bool is_sound_address(const wire::HomeNetwork::Address& address) {
  constexpr std::size_t kBits = 8;
  const auto name = SocketName::from_bytes(address.name());
  return name && !name->is_link_local() && is_of_one_host(*name) && address.prefix() != 0 &&
         address.prefix() <= kBits * name->address_bytes().size();
}

}  // namespace

wire::HomeNetwork home_network() {
  wire::HomeNetwork network;
  ifaddrs* found = nullptr;
  if (::getifaddrs(&found) != 0) {
    return network;
  }
  const std::unique_ptr<ifaddrs, void (*)(ifaddrs*)> all(found, ::freeifaddrs);
  const std::string usual_four = usual_address(AF_INET);
  const std::string usual_six = usual_address(AF_INET6);
  for (const ifaddrs* each = found; each != nullptr; each = each->ifa_next) {
    const auto name = SocketName::from_bytes(bytes_of(each->ifa_addr));
    const auto mask = SocketName::from_bytes(bytes_of(each->ifa_netmask));
    if (!name || !mask || (each->ifa_flags & IFF_UP) == 0 ||
        network.addresses_size() == kMostAddresses) {
      continue;
    }
    wire::HomeNetwork::Address address;
    address.set_name(SocketName::of_address(name->address_bytes(), 0).to_bytes());
    address.set_prefix(ones_in(*mask));
    address.set_is_usual(name->address_bytes() ==
                         (name->family() == AF_INET ? usual_four : usual_six));
    if (is_sound_address(address)) {
      *network.add_addresses() = std::move(address);
    }
  }
  return network;
}

bool is_sound(const wire::HomeNetwork& network) {
  return network.addresses_size() <= kMostAddresses &&
         std::ranges::all_of(network.addresses(), is_sound_address);
}

}  // namespace migrate
