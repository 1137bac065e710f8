#include "libmigrate/requests/members.h"

#include <gtest/gtest.h>

#include <limits>
#include <nlohmann/json.hpp>

#include "libmigrate/requests/request_json.h"

namespace migrate {
namespace {

using nlohmann::json;
using std::chrono::microseconds;
using std::chrono::milliseconds;

constexpr Words<int, 2> kColours{{{"red", 1}, {"green", 2}}};

/// What reading `object` by `read` comes to: "fine", or what is said to be wrong.
template <typename Read>
std::string said_of(const json& object, Read read) {
  MemberReader members(object);
  read(members);
  const auto result = members.result();
  if (result) {
    return "fine";
  }
  EXPECT_EQ(result.error().code, ErrorCode::kInvalid);
  return result.error().object + "; " + result.error().remedy;
}

TEST(MemberReader, WhatIsNotThereIsLeftAsItIs) {
  std::string text = "a";
  bool flag = true;
  double number = 1.5;
  std::optional<std::uint64_t> count = 7;
  std::uint32_t whole = 3;
  microseconds micros{4};
  milliseconds millis{5};
  std::optional<milliseconds> perhaps = milliseconds(6);
  std::uint64_t token = 8;
  PolicyRules rules(1);
  int colour = 2;
  EXPECT_EQ(said_of(json::object(),
                    [&](MemberReader& members) {
                      members.text("m", text);
                      members.flag("m", flag);
                      members.number("m", number);
                      members.number("m", count);
                      members.whole("m", whole, 1, 2);
                      members.microseconds("m", micros);
                      members.seconds("m", millis);
                      members.seconds("m", perhaps);
                      members.token("m", token);
                      members.rules("m", rules);
                      members.word("m", colour, kColours);
                    }),
            "fine");
  EXPECT_TRUE(text == "a" && flag && number == 1.5 && count == 7U && whole == 3);
  EXPECT_TRUE(micros.count() == 4 && millis.count() == 5 && perhaps->count() == 6 && token == 8);
  EXPECT_EQ(rules.size(), 1U);
  EXPECT_EQ(colour, 2);
}

TEST(MemberReader, AWrongMemberIsNamedWithWhatCameAndWhatMayCome) {
  const auto of = [](const json& value, auto read) { return said_of({{"m", value}}, read); };
  std::string text = "kept";
  const auto as_text = [&](MemberReader& members) { members.text("m", text); };
  EXPECT_EQ(of(7, as_text), "m of type number; write a string");
  EXPECT_EQ(of(nullptr, as_text), "m of type null; write a string");
  EXPECT_EQ(text, "kept");
  bool flag = true;
  const auto as_flag = [&](MemberReader& members) { members.flag("m", flag); };
  EXPECT_EQ(of("no", as_flag), "m of type string; write true or false");
  EXPECT_EQ(of(0, as_flag), "m of type number; write true or false");
  EXPECT_TRUE(flag);
  double number = 2;
  const auto as_number = [&](MemberReader& members) { members.number("m", number); };
  EXPECT_EQ(of(-0.5, as_number), "m -0.5; write a number from 0");
  EXPECT_EQ(of("soon", as_number), "m \"soon\"; write a number from 0");
  EXPECT_EQ(of(json::array({1, 2}), as_number), "m [1,2]; write a number from 0");
  EXPECT_EQ(number, 2);
  std::uint32_t whole = 4;
  const auto as_whole = [&](MemberReader& members) { members.whole("m", whole, 1, 10); };
  EXPECT_EQ(of(0, as_whole), "m 0; write a whole number from 1 to 10");
  EXPECT_EQ(of(11, as_whole), "m 11; write a whole number from 1 to 10");
  EXPECT_EQ(of(1.5, as_whole), "m 1.5; write a whole number from 1 to 10");
  EXPECT_EQ(whole, 4U);
  std::uint64_t token = 5;
  const auto as_token = [&](MemberReader& members) { members.token("m", token); };
  EXPECT_EQ(of(0U, as_token), "m 0; write a whole number from 1");
  EXPECT_EQ(of("x", as_token), "m \"x\"; write a whole number from 1");
  EXPECT_EQ(token, 5U);
  int colour = 1;
  const auto as_word = [&](MemberReader& members) { members.word("m", colour, kColours); };
  EXPECT_EQ(of("blue", as_word), "m \"blue\"; use one of: red, green");
  EXPECT_EQ(of(true, as_word), "m of type boolean; write a string");
  EXPECT_EQ(colour, 1);
}

TEST(MemberReader, AListIsOfStringsOnly) {
  std::vector<std::string> list{"kept"};
  const auto read = [&](MemberReader& members) { members.texts("m", list); };
  EXPECT_EQ(said_of({{"m", "a"}}, read), "m of type string; write a list of strings");
  EXPECT_EQ(said_of(json::parse(R"({"m":["a",1]})"), read),
            "m of type array; write a list of strings");
  EXPECT_EQ(said_of(json::object(), read), "fine");
  EXPECT_EQ(list, std::vector<std::string>{"kept"});
  EXPECT_EQ(said_of(json::parse(R"({"m":["a","b"]})"), read), "fine");
  EXPECT_EQ(list, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(said_of(json::parse(R"({"m":[]})"), read), "fine");
  EXPECT_TRUE(list.empty());
}

TEST(MemberReader, AWordThatMustComeIsMissed) {
  int colour = 1;
  const auto read = [&](MemberReader& members) { members.needed_word("m", colour, kColours); };
  EXPECT_EQ(said_of(json::object(), read), "m \"\"; use one of: red, green");
  EXPECT_EQ(colour, 1);
  EXPECT_EQ(said_of({{"m", "green"}}, read), "fine");
  EXPECT_EQ(colour, 2);
}

TEST(MemberReader, TheFirstMistakeIsTheOneThatIsSaid) {
  std::string text;
  bool flag = false;
  double number = 0;
  const json object = {{"a", 1}, {"b", "x"}, {"c", 3}};
  EXPECT_EQ(said_of(object,
                    [&](MemberReader& members) {
                      members.number("c", number);
                      members.flag("b", flag);
                      members.text("a", text);
                    }),
            "b of type string; write true or false");
  EXPECT_EQ(number, 3);  // What is right is read all the same.
}

TEST(MemberReader, NothingButAnObjectHasMembers) {
  for (const json& other : {json(), json(7), json("m"), json::array({"m"})}) {
    std::string text = "kept";
    EXPECT_EQ(said_of(other, [&](MemberReader& members) { members.text("m", text); }),
              "that is no JSON object; send one object in a line");
    EXPECT_EQ(text, "kept");
  }
}

TEST(MemberReader, ALongTimeIsTheLongestThatAClockHolds) {
  const json object = {{"m", 1e300}};
  MemberReader members(object);
  milliseconds millis{};
  std::optional<milliseconds> perhaps;
  microseconds micros{};
  members.seconds("m", millis);
  members.seconds("m", perhaps);
  members.microseconds("m", micros);
  EXPECT_TRUE(members.result());
  EXPECT_EQ(millis, std::chrono::seconds(1'000'000'000));
  EXPECT_EQ(perhaps, millis);
  EXPECT_EQ(micros, millis);
  const auto clock = std::chrono::steady_clock::now();
  EXPECT_GT(clock + micros, clock);  // It can be added to the time that it is now.
}

TEST(MemberReader, ATimeIsRoundedToWhatItIsKeptIn) {
  const json object = {{"m", 0.0016}, {"u", 2.5}};
  MemberReader members(object);
  milliseconds millis{};
  microseconds micros{};
  members.seconds("m", millis);
  members.microseconds("u", micros);
  EXPECT_EQ(millis.count(), 2);
  EXPECT_EQ(micros.count(), 3);
}

TEST(MemberReader, RulesAreReadOrNamed) {
  PolicyRules rules;
  const auto read = [&](MemberReader& members) { members.rules("policy", rules); };
  EXPECT_EQ(said_of({{"policy", "all"}}, read), "policy; write a list of at most 256 rules");
  EXPECT_EQ(said_of({{"policy", json::array({7})}}, read), "policy; each rule is an object");
  EXPECT_TRUE(rules.empty());
  EXPECT_EQ(said_of(json::parse(R"({"policy":[{"place":"p:1","action":"ship"}]})"), read), "fine");
  ASSERT_EQ(rules.size(), 1U);
  EXPECT_EQ(rules.front().travel, Travel::kShip);
}

TEST(MemberWriter, WhatSaysNothingIsLeftAway) {
  json object = json::object();
  MemberWriter members(object);
  members.text("text", "");
  members.flag("flag", false);
  members.number("number", 0.0);
  members.number("count", std::optional<std::uint64_t>());
  members.seconds("seconds", milliseconds(0));
  members.seconds("perhaps", std::optional<milliseconds>());
  members.token("token", 0);
  members.rules("policy", {});
  EXPECT_EQ(object, json::object());
}

TEST(MemberWriter, ALimitOfNothingIsNoneAndIsWritten) {
  json object = json::object();
  MemberWriter members(object);
  members.number("count", std::optional<std::uint64_t>(0));
  members.seconds("perhaps", std::optional(milliseconds(0)));
  members.whole("whole", 0, 0, 9);
  members.microseconds("micros", microseconds(0));
  EXPECT_EQ(object, json::parse(R"({"count":0,"perhaps":0.0,"whole":0,"micros":0})"));
}

TEST(MemberWriter, WritesWhatAReaderTakes) {
  json object = json::object();
  MemberWriter writer(object);
  writer.text("text", "caf\xc3\xa9 \"b\"");
  writer.flag("flag", true);
  writer.number("count", std::optional<std::uint64_t>(1'000'000'007));
  writer.seconds("seconds", milliseconds(1234));
  writer.token("token", std::numeric_limits<std::uint64_t>::max());
  writer.word("word", 2, kColours);
  const json back = json::parse(object.dump());  // As it goes over a socket.
  MemberReader reader(back);
  std::string text;
  bool flag = false;
  std::optional<std::uint64_t> count;
  milliseconds seconds{};
  std::uint64_t token = 0;
  int colour = 0;
  reader.text("text", text);
  reader.flag("flag", flag);
  reader.number("count", count);
  reader.seconds("seconds", seconds);
  reader.token("token", token);
  reader.word("word", colour, kColours);
  ASSERT_TRUE(reader.result()) << reader.result().error().message();
  EXPECT_EQ(text, "caf\xc3\xa9 \"b\"");
  EXPECT_TRUE(flag && count == 1'000'000'007U && colour == 2);
  EXPECT_EQ(seconds.count(), 1234);
  EXPECT_EQ(token, std::numeric_limits<std::uint64_t>::max());
}

}  // namespace
}  // namespace migrate
