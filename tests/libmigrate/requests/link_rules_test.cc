#include "libmigrate/requests/link_rules.h"

#include <gtest/gtest.h>

#include "libmigrate/requests/policy_rules.h"

namespace migrate {
namespace {

TEST(LinkRules, HaveWhatIsWritten) {
  const auto rules = parse_link_rules(R"(
[[rule]]
kind = "file"
action = "local"

[[link]]
user = "1000-1999"
program = "/opt/*"
identity = "hostA/*"
direction = "out"
protocol = "tcp"
peer = "10.1.0.0/16"
port = "5432"
action = "home"

[[link]]
peer = "fd00::1"
port = 80
action = "deny"

[[link]]
user = "root"
action = "place"
)",
                                      "p.toml");
  ASSERT_TRUE(rules) << rules.error().message();
  ASSERT_EQ(rules->size(), 3U);
  const LinkRule& first = rules->front();
  EXPECT_EQ(first.place, "p.toml:6");
  EXPECT_EQ(first.first_user, 1000U);
  EXPECT_EQ(first.last_user, 1999U);
  EXPECT_EQ(first.program, "/opt/*");
  EXPECT_EQ(first.identity, "hostA/*");
  EXPECT_EQ(first.direction, LinkDirection::kOut);
  EXPECT_EQ(first.protocol, LinkProtocol::kTcp);
  EXPECT_EQ(first.network, std::string("\x0a\x01\0\0", 4));
  EXPECT_EQ(first.network_bits, 16U);
  EXPECT_EQ(first.first_port, 5432);
  EXPECT_EQ(first.last_port, 5432);
  EXPECT_EQ(first.action, LinkAction::kHome);
  EXPECT_FALSE(first.is_of_all_links());
  const LinkRule& second = rules->at(1);
  EXPECT_EQ(second.network.size(), 16U);
  EXPECT_EQ(second.network_bits, 128U);
  EXPECT_EQ(second.first_port, 80);
  EXPECT_EQ(second.last_user, std::numeric_limits<uid_t>::max());
  const LinkRule& third = rules->at(2);
  EXPECT_EQ(third.first_user, 0U);
  EXPECT_EQ(third.last_user, 0U);
  EXPECT_TRUE(third.is_of_all_links());
}

TEST(LinkRules, WithoutAnyThereAreNone) {
  EXPECT_TRUE(parse_link_rules("", "p.toml").value().empty());
  EXPECT_TRUE(parse_link_rules("[[rule]]\naction = \"ship\"\n", "p.toml").value().empty());
}

TEST(LinkRules, WhatIsWrongIsToldWithItsPlace) {
  for (const char* text : {
           "[[link]]\n",
           "[[link]]\naction = \"drop\"\n",
           "[[link]]\naction = 1\n",
           "link = 1\n",
           "link = [1]\n",
           "[[link]]\naction = \"deny\"\npeer = \"hostA\"\n",
           "[[link]]\naction = \"deny\"\npeer = \"10.0.0.0/33\"\n",
           "[[link]]\naction = \"deny\"\npeer = \"10.0.0.0/\"\n",
           "[[link]]\naction = \"deny\"\nport = \"80-79\"\n",
           "[[link]]\naction = \"deny\"\nport = 65536\n",
           "[[link]]\naction = \"deny\"\nport = -1\n",
           "[[link]]\naction = \"deny\"\nuser = \"nobody of that name\"\n",
           "[[link]]\naction = \"deny\"\ndirection = \"both\"\n",
           "[[link]]\naction = \"deny\"\nprotocol = \"sctp\"\n",
           "[[link]]\naction = \"deny\"\nprogram = \"*****\"\n",
           "[[link]]\naction = \"deny\"\nhost = \"x\"\n",
           "[[link]]\naction = \"place\"\npeer = \"10.0.0.1\"\n",
           "[[link\n",
       }) {
    const auto rules = parse_link_rules(text, "p.toml");
    ASSERT_FALSE(rules) << text;
    EXPECT_EQ(rules.error().code, ErrorCode::kInvalid) << text;
    EXPECT_NE(rules.error().message().find("p.toml:"), std::string::npos)
        << rules.error().message();
  }
}

// A user could open what his host's administrator has closed.
TEST(LinkRules, AreNotForUsers) {
  const char* const text = "[[link]]\naction = \"home\"\n";
  EXPECT_FALSE(parse_policy(text, "mine.toml"));
  EXPECT_TRUE(parse_host_policy(text, "p.toml"));
  EXPECT_FALSE(parse_host_policy("[[links]]\naction = \"home\"\n", "p.toml"));
}

}  // namespace
}  // namespace migrate
