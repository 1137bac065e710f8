#include "libmigrate/api/json_text.h"

#include <gtest/gtest.h>

#include <string>

namespace migrate::client {
namespace {

TEST(JsonText, QuotesWhatMustBe) {
  EXPECT_EQ(quote("plain"), "\"plain\"");
  EXPECT_EQ(quote("a\"b\\c\n\x01"), "\"a\\\"b\\\\c\\u000a\\u0001\"");
}

TEST(JsonText, FindsMembersOfTheOuterObjectOnly) {
  const ObjectScanner object(
      R"( {"a":{"exit":9,"s":"}"},"list":[1,{"exit":8},"]"],"exit": 3 ,"text":"x\ty"} )");
  EXPECT_EQ(object.integer("exit"), 3);
  EXPECT_EQ(object.raw("a"), R"({"exit":9,"s":"}"})");
  EXPECT_EQ(object.raw("list"), R"([1,{"exit":8},"]"])");
  EXPECT_EQ(object.string("text"), "x\ty");
  EXPECT_FALSE(object.raw("s").has_value());
  EXPECT_FALSE(object.integer("text").has_value());
  EXPECT_FALSE(object.string("exit").has_value());
}

TEST(JsonText, UnescapesUnicode) {
  const ObjectScanner object("{\"a\":\"\\u00e9\\u20ac\\ud83d\\ude00\\/\"}");
  EXPECT_EQ(object.string("a"), "\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80/");
}

TEST(JsonText, LeavesMembersOut) {
  EXPECT_EQ(ObjectScanner(R"({"event":"result","exit":0,"x":[1, 2]})").without("event", "exit"),
            R"({"x":[1, 2]})");
  EXPECT_EQ(ObjectScanner(R"({"x":1, "exit":0,"y":2})").without("event", "exit"),
            R"({"x":1,"y":2})");
  EXPECT_EQ(ObjectScanner("{}").without("event", "exit"), "{}");
}

TEST(JsonText, BrokenTextGivesNothing) {
  for (const char* text : {"", "{", "[]", "{\"a\"", "{\"a\":", "{\"a\":}", "{\"a\":\"", "{a:1}",
                           "{\"a\":\"\\u12\"}", "{\"a\":\"\\q\"}", "{\"a\":\"\\ud800\\u0041\"}"}) {
    EXPECT_FALSE(ObjectScanner(text).string("a").has_value()) << text;
    (void)ObjectScanner(text).without("a", "b");
  }
  const std::string deep = "{\"a\":" + std::string(100000, '[');
  EXPECT_FALSE(ObjectScanner(deep).raw("a").has_value());
}

}  // namespace
}  // namespace migrate::client
