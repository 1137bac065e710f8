#include "libmigrate/policy/firewall.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>

namespace migrate {
namespace {

const Firewall::Process kAlice{.user = 1000, .program = "/usr/bin/curl", .identity = "hostA/1f/2"};

SocketName name(const std::string& address, std::uint16_t port) {
  std::string bytes(16, '\0');
  const bool is_four = ::inet_pton(AF_INET, address.c_str(), bytes.data()) == 1;
  if (!is_four) {
    EXPECT_EQ(::inet_pton(AF_INET6, address.c_str(), bytes.data()), 1) << address;
  }
  return SocketName::of_address(std::string_view(bytes).substr(0, is_four ? 4 : 16), port);
}

Firewall::Wanted out(const std::string& peer, std::uint16_t port,
                     LinkProtocol protocol = LinkProtocol::kTcp) {
  return {LinkDirection::kOut, protocol,
          name(peer.find(':') == peer.npos ? "10.0.0.1" : "fd00::9", 50'000), name(peer, port)};
}

Firewall::Wanted in(const std::string& peer, std::uint16_t own_port) {
  return {LinkDirection::kIn, LinkProtocol::kTcp, name("10.0.0.1", own_port), name(peer, 50'000)};
}

LinkRule rule(LinkAction action) {
  LinkRule made;
  made.place = "p.toml:1";
  made.action = action;
  return made;
}

LinkRule of_network(LinkAction action, const std::string& address, std::uint32_t bits) {
  LinkRule made = rule(action);
  made.network = name(address, 0).address_bytes();
  made.network_bits = bits;
  return made;
}

TEST(Firewall, WithoutRulesLetsAllThrough) {
  Firewall firewall;
  EXPECT_TRUE(firewall.lets(out("10.0.0.2", 80)));
  EXPECT_TRUE(firewall.may_use_place());
  EXPECT_EQ(firewall.applied(), 0U);
}

TEST(Firewall, TheFirstRuleThatFitsDecides) {
  LinkRule database = of_network(LinkAction::kHome, "10.1.0.5", 32);
  database.first_port = database.last_port = 5432;
  Firewall firewall({database, of_network(LinkAction::kDeny, "10.1.0.0", 16)}, kAlice);
  EXPECT_TRUE(firewall.lets(out("10.1.0.5", 5432)));
  EXPECT_FALSE(firewall.lets(out("10.1.0.5", 22)));
  EXPECT_FALSE(firewall.lets(in("10.1.255.255", 80)));
  EXPECT_TRUE(firewall.lets(out("10.2.0.0", 22)));
  EXPECT_EQ(firewall.rules()[0].count, 1U);
  EXPECT_EQ(firewall.rules()[1].count, 2U);
  EXPECT_EQ(firewall.applied(), 3U);
}

TEST(Firewall, NetworksAreComparedByTheBitsThatCount) {
  const Firewall odd({of_network(LinkAction::kDeny, "10.0.0.128", 25)}, kAlice);
  EXPECT_NE(odd.denying(out("10.0.0.129", 1)), nullptr);
  EXPECT_EQ(odd.denying(out("10.0.0.127", 1)), nullptr);
  const Firewall all({of_network(LinkAction::kDeny, "0.0.0.0", 0)}, kAlice);
  EXPECT_NE(all.denying(out("203.0.113.1", 1)), nullptr);
  EXPECT_EQ(all.denying(out("fd00::1", 1)), nullptr);
  const Firewall six({of_network(LinkAction::kDeny, "fd00::", 8)}, kAlice);
  EXPECT_NE(six.denying(out("fdff::1", 1)), nullptr);
  EXPECT_EQ(six.denying(out("fe00::1", 1)), nullptr);
}

// By IPv6 a rule for IPv4 could be walked around.
TEST(Firewall, AnAddressOfFourInSixIsOfFour) {
  const Firewall firewall({of_network(LinkAction::kDeny, "10.0.0.0", 8)}, kAlice);
  EXPECT_NE(firewall.denying(out("::ffff:10.9.9.9", 80)), nullptr);
  EXPECT_EQ(firewall.denying(out("::ffff:11.9.9.9", 80)), nullptr);
}

TEST(Firewall, PortsAreThePeersWayOutAndItsOwnWayIn) {
  LinkRule web = rule(LinkAction::kDeny);
  web.first_port = 8000;
  web.last_port = 8099;
  Firewall firewall({web}, kAlice);
  EXPECT_FALSE(firewall.lets(out("10.0.0.2", 8000)));
  EXPECT_FALSE(firewall.lets(in("10.0.0.2", 8099)));
  EXPECT_TRUE(firewall.lets(out("10.0.0.2", 8100)));
  EXPECT_TRUE(firewall.lets(in("10.0.0.2", 7999)));
}

TEST(Firewall, DirectionAndProtocolCount) {
  LinkRule queries = rule(LinkAction::kDeny);
  queries.direction = LinkDirection::kOut;
  queries.protocol = LinkProtocol::kUdp;
  Firewall firewall({queries}, kAlice);
  EXPECT_FALSE(firewall.lets(out("10.0.0.2", 53, LinkProtocol::kUdp)));
  EXPECT_TRUE(firewall.lets(out("10.0.0.2", 53)));
  EXPECT_TRUE(firewall.lets(in("10.0.0.2", 53)));
}

TEST(Firewall, RulesOfOthersAreNotAboutIt) {
  LinkRule of_bob = rule(LinkAction::kDeny);
  of_bob.first_user = of_bob.last_user = 1001;
  LinkRule of_program = rule(LinkAction::kDeny);
  of_program.program = "/opt/*";
  LinkRule of_identity = rule(LinkAction::kDeny);
  of_identity.identity = "hostB/*";
  EXPECT_TRUE(Firewall({of_bob, of_program, of_identity}, kAlice).rules().empty());
  of_program.program = "/usr/*";
  of_identity.identity = "hostA/*/2";
  EXPECT_EQ(Firewall({of_bob, of_program, of_identity}, kAlice).rules().size(), 2U);
}

TEST(Firewall, WhoMayBeDeniedSomethingStaysInTheNetworkOfHome) {
  EXPECT_TRUE(
      Firewall({rule(LinkAction::kPlace), rule(LinkAction::kDeny)}, kAlice).may_use_place());
  EXPECT_FALSE(
      Firewall({rule(LinkAction::kDeny), rule(LinkAction::kPlace)}, kAlice).may_use_place());
  EXPECT_FALSE(Firewall({rule(LinkAction::kHome)}, kAlice).may_use_place());
  EXPECT_TRUE(Firewall({of_network(LinkAction::kHome, "10.0.0.0", 8)}, kAlice).may_use_place());
  // Of single links a rule for the place says nothing.
  EXPECT_FALSE(Firewall({rule(LinkAction::kPlace), rule(LinkAction::kDeny)}, kAlice)
                   .lets(out("10.0.0.2", 1)));
}

TEST(Firewall, GoesOnCountingForAnotherWorker) {
  Firewall firewall({rule(LinkAction::kDeny)}, kAlice);
  firewall.adopt("p.toml:1", 41);
  firewall.adopt("p.toml:2", 7);
  EXPECT_FALSE(firewall.lets(out("10.0.0.2", 1)));
  EXPECT_EQ(firewall.rules()[0].count, 42U);
}

TEST(Firewall, SaysWhatARuleSays) {
  LinkRule made = of_network(LinkAction::kDeny, "10.0.0.0", 8);
  made.direction = LinkDirection::kOut;
  made.protocol = LinkProtocol::kTcp;
  made.first_port = 20;
  made.last_port = 22;
  EXPECT_EQ(to_string(made), "deny out tcp 10.0.0.0/8 port 20-22");
  EXPECT_EQ(to_string(rule(LinkAction::kPlace)), "place");
}

}  // namespace
}  // namespace migrate
