#include "libmigrate/advisor/past_moves.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "base/file.h"

namespace migrate {
namespace {

constexpr std::uint64_t kMib = 1U << 20U;

class PastMovesTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = testing::TempDir() + "past-XXXXXX";
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string folder_;
};

TEST_F(PastMovesTest, AreKeptForEachDestination) {
  const PastMoves there(folder_, "tcp://there:1 auto");
  EXPECT_FALSE(there.read().knows_pages());
  there.note({.behind = 100, .freeze_us = 2000});
  EXPECT_EQ(PastMoves(folder_, "tcp://there:1 auto").read().behind, 100);
  EXPECT_FALSE(PastMoves(folder_, "tcp://there:2 auto").read().knows_pages());
  EXPECT_FALSE(PastMoves(folder_, "tcp://there:1 rdma").read().knows_pages());
}

TEST_F(PastMovesTest, TheNewOneCountsAsMuchAsAllBefore) {
  const PastMoves there(folder_, "there");
  there.note({.behind = 100, .freeze_us = 2000});
  there.note({.behind = 200, .stopped = 50});
  const Speeds now = there.read();
  EXPECT_EQ(now.behind, 150);
  EXPECT_EQ(now.stopped, 50);
  EXPECT_EQ(now.freeze_us, 2000);
  EXPECT_EQ(now.ahead, 0);
}

TEST_F(PastMovesTest, ThatCannotBeReadAreNone) {
  const PastMoves there(folder_, "there");
  there.note({.behind = 100});
  const std::string path = folder_ + "/past-moves/there";
  for (const char* text : {"", "{", "[]", "{\"behind\": \"x\"}", "{\"behind\": -1}", "\xff"}) {
    ASSERT_TRUE(write_file(path, ""));
    std::filesystem::resize_file(path, 0);
    ASSERT_TRUE(write_file(path, text));
    EXPECT_FALSE(there.read().knows_pages()) << text;
  }
  there.note({.behind = 100});
  EXPECT_EQ(there.read().behind, 100);
}

TEST_F(PastMovesTest, NothingThatIsKnownIsNoted) {
  PastMoves(folder_, "there").note({});
  EXPECT_FALSE(std::filesystem::exists(folder_ + "/past-moves"));
  const PastMoves nowhere("", "there");
  nowhere.note({.behind = 100});
  EXPECT_FALSE(nowhere.read().knows_pages());
}

MoveFigures move(std::string_view mode) {
  return {.plan = find_mode(mode).value(),
          .threads = 1,
          .freeze_us = 10'000,
          .wire_bytes = 100 * kMib,
          .independence_us = 0};
}

TEST(SpeedsOfAMove, AreOfWhatItsModeDoes) {
  MoveFigures lazy = move("lazy");
  lazy.independence_us = 1'000'000;
  EXPECT_DOUBLE_EQ(speeds_of(lazy).behind, 100.0 * kMib);
  EXPECT_EQ(speeds_of(lazy).stopped, 0);
  EXPECT_EQ(speeds_of(lazy).freeze_us, 10'000);
  MoveFigures eager = move("eager");
  eager.restore_us = 500'000;
  EXPECT_DOUBLE_EQ(speeds_of(eager).stopped, 200.0 * kMib);
  EXPECT_EQ(speeds_of(eager).freeze_us, 0);  // How much of it pages were is not known.
  MoveFigures hybrid = move("hybrid");
  hybrid.rounds_bytes = 80 * kMib;
  hybrid.rounds_us = 1'000'000;
  hybrid.independence_us = 100'000;
  hybrid.kept_us = 4000;
  EXPECT_DOUBLE_EQ(speeds_of(hybrid).ahead, 80.0 * kMib);
  EXPECT_DOUBLE_EQ(speeds_of(hybrid).behind, 200.0 * kMib);
  EXPECT_EQ(speeds_of(hybrid).freeze_after_rounds_us, 6000);
  EXPECT_EQ(speeds_of(hybrid).freeze_us, 0);
}

TEST(SpeedsOfAMove, SayNothingOfWhatDoesNotTell) {
  MoveFigures small = move("lazy");
  small.wire_bytes = kMib;
  small.independence_us = 1000;
  EXPECT_FALSE(speeds_of(small).knows_pages());
  MoveFigures limited = move("lazy");
  limited.limited = true;
  limited.independence_us = 1'000'000;
  EXPECT_FALSE(speeds_of(limited).knows_pages());
  MoveFigures demand = move("demand");
  demand.independence_us = 60'000'000;
  EXPECT_FALSE(speeds_of(demand).knows_pages());
  MoveFigures many = move("lazy");
  many.threads = 1000;
  EXPECT_GT(speeds_of(many).freeze_us, 0);
  many.freeze_us = 0;
  EXPECT_EQ(speeds_of(many).freeze_us, 0);
}

}  // namespace
}  // namespace migrate
