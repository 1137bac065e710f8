#include "libmigrate/requests/json_member.h"

#include <gtest/gtest.h>

namespace migrate {
namespace {

TEST(JsonMember, TakesMembersOfTheRightTypeOnly) {
  const auto object = parse_object(R"({"text":"a","number":2,"half":0.5,"list":[]})");
  EXPECT_EQ(text_member(object, "text"), "a");
  EXPECT_EQ(text_member(object, "number", "other"), "other");
  EXPECT_EQ(text_member(object, "none", "other"), "other");
  EXPECT_EQ(integer_member(object, "number", 9), 2);
  EXPECT_EQ(integer_member(object, "half", 9), 9);
  EXPECT_EQ(integer_member(object, "text", 9), 9);
  EXPECT_EQ(integer_member(object, "list", 9), 9);
}

TEST(JsonMember, ANumberTooLargeCountsAsAbsent) {
  const auto object = parse_object(R"({"a":9999999999,"b":18446744073709551615})");
  EXPECT_EQ(integer_member(object, "a", 9), 9);
  EXPECT_EQ(integer_member(object, "b", 9), 9);
}

TEST(JsonMember, NamesThatAreNoTextAreShownAllTheSame) {
  const std::string text = json_text({{"path", "/caf\xe9"}});
  EXPECT_EQ(text_member(parse_object(text), "path"), "/caf\uFFFD");
}

TEST(JsonMember, OnlyAnObjectIsOne) {
  EXPECT_TRUE(parse_object("[1]").is_null());
  EXPECT_TRUE(parse_object("{").is_null());
  EXPECT_TRUE(parse_object("").is_null());
  EXPECT_TRUE(parse_object("{\"a\":\"\xff\"}").is_null());
}

TEST(JsonMember, NestingHasAnEnd) {
  // Deep enough to exhaust the stack of whoever writes it again.
  const std::string deep = "{\"a\":" + std::string(100'000, '[') + std::string(100'000, ']') + "}";
  EXPECT_TRUE(parse_object(deep).is_null());
}

}  // namespace
}  // namespace migrate
