#include "libmigrate/state/name_book.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace migrate {
namespace {

class NameBookTest : public testing::Test {
 protected:
  NameBookTest() {
    std::string pattern = "/tmp/name_bookXXXXXX";
    EXPECT_NE(::mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
  }
  ~NameBookTest() override { std::filesystem::remove_all(directory_); }
  NameBook book() const { return NameBook::open(directory_).value(); }

  std::string directory_;
};

EndLink a_link(const std::string& process, const std::string& other) {
  return {.process = process, .other = other, .signal = 9, .user = 7, .asker = "{}"};
}

TEST_F(NameBookTest, ANameIsOfOneProcessUntilItIsTakenAway) {
  const GivenName first{.name = "solver", .identity = "a/1/2", .user = 7};
  const GivenName second{.name = "solver", .identity = "a/3/2", .user = 7};
  EXPECT_TRUE(book().give(first));
  EXPECT_TRUE(book().give(first));  // Once more is as once.
  const auto taken = book().give(second);
  ASSERT_FALSE(taken);
  EXPECT_EQ(taken.error().code, ErrorCode::kRefused);
  EXPECT_EQ(book().find("solver").value(), first);
  EXPECT_FALSE(book().find("other").value());
  EXPECT_FALSE(book().take_away(second).value());  // It was not that one's.
  EXPECT_TRUE(book().take_away(first).value());
  EXPECT_FALSE(book().take_away(first).value());
  EXPECT_TRUE(book().give(second));
  EXPECT_EQ(book().names().value(), std::vector{second});
}

TEST_F(NameBookTest, AUserHasSoManyNamesAndNoMore) {
  NameBook names = book();
  for (std::size_t i = 0; i < NameBook::kMostOfUser; ++i) {
    ASSERT_TRUE(names.give({.name = "n" + std::to_string(i), .identity = "a/1/2", .user = 7}));
  }
  const auto refused = names.give({.name = "more", .identity = "a/1/2", .user = 7});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kRefused);
  EXPECT_TRUE(names.give({.name = "more", .identity = "a/1/2", .user = 8}));
}

TEST_F(NameBookTest, LinksOutliveWhoeverMadeThem) {
  EXPECT_FALSE(std::filesystem::exists(NameBook::links_mark(directory_)));
  EXPECT_TRUE(book().link(a_link("a/1/2", "b/1/2")));
  EXPECT_TRUE(book().link(a_link("a/1/2", "b/1/2")));
  EXPECT_TRUE(book().link(a_link("a/3/2", "b/1/2")));
  EXPECT_TRUE(std::filesystem::exists(NameBook::links_mark(directory_)));
  EXPECT_EQ(book().links().value(),
            (std::vector{a_link("a/1/2", "b/1/2"), a_link("a/3/2", "b/1/2")}));
  EXPECT_EQ(book().links("a/3/2").value(), std::vector{a_link("a/3/2", "b/1/2")});
  EXPECT_TRUE(book().unlink("a/1/2", "b/1/2").value());
  EXPECT_FALSE(book().unlink("a/1/2", "b/1/2").value());
  EXPECT_EQ(book().links().value().size(), 1U);
}

TEST_F(NameBookTest, ADamagedOneIsMovedAside) {
  EXPECT_TRUE(Database::move_aside_if_damaged(NameBook::path(directory_)));  // There is none.
  std::ofstream(NameBook::path(directory_)) << std::string(9000, 'x');
  const auto damaged = NameBook::open(directory_);
  ASSERT_FALSE(damaged);
  EXPECT_EQ(damaged.error().code, ErrorCode::kCorrupt);
  EXPECT_TRUE(Database::move_aside_if_damaged(NameBook::path(directory_)));
  EXPECT_TRUE(book().give({.name = "solver", .identity = "a/1/2", .user = 7}));
  EXPECT_TRUE(Database::move_aside_if_damaged(NameBook::path(directory_)));  // Nothing to do.
  EXPECT_TRUE(book().find("solver").value());
}

}  // namespace
}  // namespace migrate
