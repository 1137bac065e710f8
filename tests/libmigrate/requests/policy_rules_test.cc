#include "libmigrate/requests/policy_rules.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/file.h"

namespace migrate {
namespace {

/// Where a mistake is said to be, and what.
std::string mistake(const std::string& text) {
  const auto rules = parse_policy(text, "p.toml");
  return rules ? "none" : rules.error().message();
}

TEST(PolicyRules, AreReadInTheirOrder) {
  const auto rules = parse_policy(R"(# of a cluster
[[rule]]
kind = "code"
name = "/opt/*"
known = false
action = "lazy"

[[rule]]
min_bytes = 10
max_bytes = 20
action = "refuse"
)",
                                  "p.toml");
  ASSERT_TRUE(rules) << rules.error().message();
  ASSERT_EQ(rules->size(), 2U);
  EXPECT_EQ(rules->front().place, "p.toml:2");
  EXPECT_EQ(rules->front().kind, MemoryKind::kCode);
  EXPECT_EQ(rules->front().name, "/opt/*");
  EXPECT_EQ(rules->front().known, false);
  EXPECT_EQ(rules->front().travel, Travel::kLazy);
  EXPECT_EQ(rules->back().min_bytes, 10U);
  EXPECT_EQ(rules->back().max_bytes, 20U);
  EXPECT_EQ(rules->back().travel, Travel::kRefuse);
  EXPECT_EQ(policy_from_json(to_json(*rules)).value(), *rules);
}

TEST(PolicyRules, MistakesAreSaidWithLineAndColumn) {
  const auto expect_at = [](const std::string& text, const std::string& place) {
    EXPECT_NE(mistake(text).find("p.toml:" + place), std::string::npos) << mistake(text);
  };
  expect_at("[[rule]]\naction = \"late\"\n", "2:10");
  expect_at("[[rule]]\naction = \"lazy\"\n  kinds = \"code\"\n", "3:3");
  expect_at("[[rule]]\n\n[[rule]]\naction = 'ship'\n", "1:1");
  expect_at("x = 1\n", "1:1");
  expect_at("[[rule]]\naction = \"lazy\"\nmin_bytes = -1\n", "3:13");
  expect_at("[[rule]]\naction = \"local\"\nkind = \"heap\"\n", "1:1");
  expect_at("[[rule]]\naction = \"ship\"\nname = \"a*b*c*d*e*\"\n", "1:1");
  expect_at("[[rule]\n", "1:");
}

TEST(PolicyRules, WhatAClientSendsIsCheckedAsWell) {
  const auto accepted = [](const char* text) {
    return policy_from_json(nlohmann::json::parse(text)).has_value();
  };
  EXPECT_TRUE(accepted(R"([{"place": "p:1", "action": "ship"}])"));
  EXPECT_FALSE(accepted(R"({"place": "p:1", "action": "ship"})"));
  EXPECT_FALSE(accepted(R"([{"place": "p:1"}])"));
  EXPECT_FALSE(accepted(R"([{"place": "p:1", "action": "ship", "kind": "page"}])"));
  EXPECT_FALSE(accepted(R"([{"place": "p\n1", "action": "ship"}])"));
  EXPECT_FALSE(accepted(R"([{"place": "p:1", "action": "ship", "name": "*****"}])"));
  EXPECT_FALSE(accepted(R"([{"place": "p:1", "action": "local", "kind": "stack"}])"));
  nlohmann::json many = nlohmann::json::array();
  for (int i = 0; i < 257; ++i) {
    many.push_back({{"place", "p"}, {"action", "ship"}});
  }
  EXPECT_FALSE(policy_from_json(many));
}

}  // namespace
}  // namespace migrate
