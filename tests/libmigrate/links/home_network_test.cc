// What one host says to another of its network.
#include "libmigrate/links/home_network.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <string_view>

#include "libmigrate/links/tcp_socket.h"

namespace migrate {
namespace {

using namespace std::string_view_literals;

wire::HomeNetwork network_of(std::string_view address, std::uint32_t prefix) {
  wire::HomeNetwork network;
  wire::HomeNetwork::Address& only = *network.add_addresses();
  only.set_name(SocketName::of_address(address, 0).to_bytes());
  only.set_prefix(prefix);
  return network;
}

TEST(HomeNetworks, OurOwnIsSound) {
  EXPECT_TRUE(is_sound(home_network()));
  EXPECT_TRUE(is_sound(wire::HomeNetwork()));
}

TEST(HomeNetworks, AHostHasAddressesOfOneHost) {
  for (const std::string_view one :
       {"\x0A\1\1\1"sv, "\x7F\0\0\1"sv, "\xF0\1\1\1"sv, "\xFD\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1"sv}) {
    EXPECT_TRUE(is_sound(network_of(one, 24)));
    EXPECT_FALSE(is_sound(network_of(one, 0)));
    EXPECT_FALSE(is_sound(network_of(one, 129)));
  }
  for (const std::string_view none :
       {"\0\0\0\0"sv, "\0\1\1\1"sv, "\xE0\0\0\1"sv, "\xEF\xFF\xFF\xFF"sv, "\xFF\xFF\xFF\xFF"sv,
        "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"sv, "\xFF\2\0\0\0\0\0\0\0\0\0\0\0\0\0\1"sv,
        "\xFE\x80\0\0\0\0\0\0\0\0\0\0\0\0\0\1"sv}) {
    EXPECT_FALSE(is_sound(network_of(none, 24)));
  }
  wire::HomeNetwork torn = network_of("\x0A\1\1\1", 24);
  torn.mutable_addresses(0)->set_name("\x02");
  EXPECT_FALSE(is_sound(torn));
}

}  // namespace
}  // namespace migrate
