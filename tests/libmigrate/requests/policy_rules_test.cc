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

TEST(PolicyRules, EachMistakeIsSaidInItsWords) {
  const auto expect_said = [](const std::string& rule, const std::string& said) {
    const std::string text = mistake("[[rule]]\naction = \"ship\"\n" + rule + "\n");
    EXPECT_NE(text.find("read the policy p.toml:"), std::string::npos) << text;
    EXPECT_NE(text.find(said), std::string::npos) << text;
  };
  expect_said("kind = \"page\"", "write one of code, data, file, heap, stack, arena");
  expect_said("kind = 7", "write one of code, data, file, heap, stack, arena");
  expect_said("name = 7", "write name = \"PATTERN\"");
  expect_said("known = \"yes\"", "write known = true or known = false");
  expect_said("known = 1", "write known = true or known = false");
  expect_said("min_bytes = 1.0", "write a whole number from 0");
  expect_said("max_bytes = \"4k\"", "write a whole number from 0");
  expect_said("min_bytes = 2\nmax_bytes = 1", "min_bytes is more than max_bytes");
  expect_said("name = \"a\\nb\"", "a name has no control characters");
  expect_said("kind = \"file\"\nname = \"relative/*\"", "paths of files begin with /");
  expect_said("name = \"a\\u007f\"", "a name has no control characters");
  expect_said("name = \"" + std::string(1025, 'a') + "\"", "at most 1024 bytes");
  expect_said("known = true\nkind = \"arena\"", "only of files it is asked whether they are known");
  expect_said("size = 3", "unknown key; a rule has kind, name, min_bytes, max_bytes, known and");
  EXPECT_NE(mistake("rule = [1]\n").find("p.toml:1:9"), std::string::npos);
  EXPECT_NE(mistake("rule = 1\n").find("here are only [[rule]] tables"), std::string::npos);
  EXPECT_NE(mistake("[rule]\naction = 'ship'\n").find("only [[rule]]"), std::string::npos);
  EXPECT_NE(mistake("[[rule]]\nkind = 'code'\n").find("eager, lazy, local, ship, refuse"),
            std::string::npos);
}

TEST(PolicyRules, AreAtMost256) {
  const auto text_of = [](int count) {
    std::string text;
    for (int i = 0; i < count; ++i) {
      text += "[[rule]]\naction = 'ship'\n";
    }
    return text;
  };
  EXPECT_EQ(mistake(text_of(256)), "none");
  EXPECT_NE(mistake(text_of(257)).find("at most 256 rules"), std::string::npos);
  EXPECT_TRUE(parse_policy("", "p.toml").value().empty());  // As if there were no file.
}

TEST(PolicyRules, LimitsThatMeetAreNoMistake) {
  EXPECT_EQ(mistake("[[rule]]\naction = 'ship'\nmin_bytes = 4096\nmax_bytes = 4096\n"), "none");
  EXPECT_EQ(mistake("[[rule]]\naction = 'ship'\nname = '*/a*/b*c*'\n"), "none");  // Four.
  EXPECT_EQ(mistake("[[rule]]\naction = 'ship'\nname = '" + std::string(1024, 'a') + "'\n"),
            "none");
}

TEST(PolicyRules, EachKindAndEachActionGoesThereAndBack) {
  for (const auto& [kind_word, kind] : kMemoryKinds) {
    for (const auto& [travel_word, travel] : kTravels) {
      const std::string text = "[[rule]]\nkind = '" + std::string(kind_word) + "'\naction = '" +
                               std::string(travel_word) + "'\n";
      const auto rules = parse_policy(text, "p.toml");
      // What has no file is nowhere else: it cannot be taken from there.
      ASSERT_EQ(rules.has_value(), is_of_file(kind) || travel != Travel::kLocal) << text;
      if (rules) {
        EXPECT_EQ(rules->front().kind, kind);
        EXPECT_EQ(rules->front().travel, travel);
        const auto sent = nlohmann::json::parse(to_json(*rules).dump());
        EXPECT_EQ(policy_from_json(sent).value(), *rules);
      }
    }
  }
}

TEST(PolicyRules, OfARequestFitNothingMoreThanWhatIsWritten) {
  // Whoever writes a limit in a way that is not understood must not get a rule without one.
  const auto said = [](const char* member, const nlohmann::json& value) {
    nlohmann::json rule = {{"place", "p:1"}, {"action", "ship"}};
    rule[member] = value;
    const auto rules = policy_from_json(nlohmann::json::array({rule}));
    return rules ? "none" : rules.error().message();
  };
  EXPECT_EQ(said("min_bytes", 4096U), "none");
  for (const nlohmann::json& wrong : {nlohmann::json(-1), nlohmann::json(0.5), nlohmann::json("1"),
                                      nlohmann::json(), nlohmann::json(true)}) {
    EXPECT_NE(said("min_bytes", wrong).find("the min_bytes of a rule"), std::string::npos) << wrong;
    EXPECT_NE(said("max_bytes", wrong).find("the max_bytes of a rule"), std::string::npos) << wrong;
  }
  EXPECT_NE(said("name", 7).find("the name of a rule"), std::string::npos);
  EXPECT_NE(said("known", "yes").find("the known of a rule"), std::string::npos);
  EXPECT_NE(said("kind", nlohmann::json()).find("the kind of a rule"), std::string::npos);
  EXPECT_NE(said("place", 1).find("the place of a rule"), std::string::npos);
  EXPECT_NE(said("place", std::string(1025, 'p')).find("a place"), std::string::npos);
  EXPECT_NE(said("action", "send").find("an action"), std::string::npos);
}

}  // namespace
}  // namespace migrate
