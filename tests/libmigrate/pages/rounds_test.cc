#include "libmigrate/pages/rounds.h"

#include <gtest/gtest.h>

namespace migrate {
namespace {

constexpr std::uint64_t kMibPages = 256;

/// So many MiB in so many milliseconds, in which so many MiB were written.
Round round_of(std::uint64_t mib, std::int64_t ms, std::uint64_t written_mib) {
  return {.sent_pages = mib * kMibPages,
          .sent_bytes = mib << 20U,
          .took_us = ms * 1000,
          .written_pages = written_mib * kMibPages};
}

TEST(Rounds, EndWhenTheRestFitsIntoTheDowntime) {
  Rounds rounds({.most = 10, .downtime = std::chrono::milliseconds(10)});
  EXPECT_EQ(rounds.note(round_of(1000, 1000, 100)), std::nullopt);     // 100 ms would be left,
  EXPECT_EQ(rounds.note(round_of(100, 100, 20)), std::nullopt);        // 20,
  EXPECT_EQ(rounds.note(round_of(20, 20, 10)), RoundsEnd::kDowntime);  // 10.
  EXPECT_EQ(rounds.all().size(), 3U);
}

TEST(Rounds, EndAtOnceWhereNothingIsWritten) {
  Rounds rounds({.most = 10, .downtime = std::chrono::microseconds(0)});
  EXPECT_EQ(rounds.note(round_of(1000, 1000, 0)), RoundsEnd::kDowntime);
  Rounds empty({});
  EXPECT_EQ(empty.note({}), RoundsEnd::kDowntime);
}

TEST(Rounds, EndWhereMoreIsWrittenThanCanBeSent) {
  Rounds rounds({.most = 10, .downtime = std::chrono::milliseconds(1)});
  EXPECT_EQ(rounds.note(round_of(1000, 1000, 800)), std::nullopt);
  EXPECT_EQ(rounds.note(round_of(800, 800, 900)), RoundsEnd::kDirtyRate);
}

// All of it, over and over, and nothing else: no more is written than was sent, however fast.
TEST(Rounds, EndWhereAllThatIsSentIsWrittenAgain) {
  Rounds rounds({.most = 50, .downtime = std::chrono::milliseconds(1)});
  EXPECT_EQ(rounds.note(round_of(42, 650, 32)), std::nullopt);
  Round again = round_of(32, 500, 32);
  again.sent_pages += 7;       // Of its other memory.
  again.sent_bytes += 100000;  // On the wire it is a little more.
  EXPECT_EQ(rounds.note(again), RoundsEnd::kDirtyRate);
  EXPECT_LT(rounds.dirty_rate(), rounds.send_rate());
}

TEST(Rounds, EndAfterTheMostThatAreWanted) {
  Rounds rounds({.most = 2, .downtime = std::chrono::milliseconds(0)});
  EXPECT_EQ(rounds.note(round_of(1000, 1000, 100)), std::nullopt);
  EXPECT_EQ(rounds.note(round_of(100, 100, 10)), RoundsEnd::kMost);
  Rounds one({.most = 1, .downtime = std::chrono::milliseconds(0)});
  EXPECT_EQ(one.note(round_of(1000, 1000, 100)), RoundsEnd::kMost);
}

}  // namespace
}  // namespace migrate
