#include "transport/rdma/ring.h"

#include <gtest/gtest.h>

#include <deque>
#include <random>

namespace migrate::rdma {
namespace {

constexpr std::size_t kRing = 4096;

TEST(RdmaRing, MessagesLieInOnePiece) {
  RingCursor cursor(kRing);
  const auto first = cursor.next(3000);
  EXPECT_EQ(first.offset, 0U);
  cursor.pass(first, 3000);
  const auto second = cursor.next(1097);
  EXPECT_EQ(second.offset, 0U) << "it does not fit before the end";
  EXPECT_EQ(second.used, 1096U + 1097U) << "what was skipped counts";
  const auto exact = cursor.next(1096);
  EXPECT_EQ(exact.offset, 3000U);
  cursor.pass(exact, 1096);
  EXPECT_EQ(cursor.next(1).offset, 0U);
}

TEST(RdmaRing, RoomComesBackWhenBothSidesAreDone) {
  SendWindow window(kRing);
  for (int i = 0; i < 4; ++i) {
    ASSERT_TRUE(window.begin(1024));
  }
  EXPECT_FALSE(window.has_room(1));
  EXPECT_TRUE(window.has_room(0)) << "a small message needs none";
  EXPECT_TRUE(window.credited(1));
  EXPECT_FALSE(window.has_room(1024)) << "the device may still read it";
  window.completed();
  EXPECT_TRUE(window.has_room(1024));
  EXPECT_FALSE(window.credited(4)) << "three are under way";
}

TEST(RdmaRing, TheWindowIsBounded) {
  SendWindow window(kRing);
  for (std::uint32_t i = 0; i < kWindow; ++i) {
    ASSERT_TRUE(window.begin(0));
  }
  EXPECT_FALSE(window.begin(0));
  EXPECT_EQ(window.incomplete(), kWindow);
}

// With a quarter of the ring not given back, there is room for the longest message in the end, at
// whatever place the ring is: nobody waits for ever.
TEST(RdmaRing, TheLongestMessageFitsBesideAQuarterHeldBack) {
  std::mt19937 random(1);
  SendWindow window(kRing);
  std::deque<std::size_t> held;
  std::size_t held_bytes = 0;
  for (int i = 0; i < 20000; ++i) {
    const std::size_t length = 1 + random() % (kRing / kLongestShare);
    while (!window.has_room(length)) {
      ASSERT_GE(held_bytes, kRing / kLongestShare) << "stuck";
      held_bytes -= held.front();
      held.pop_front();
      ASSERT_TRUE(window.credited(1));
    }
    const auto place = window.begin(length);
    ASSERT_TRUE(place);
    ASSERT_LE(place->offset + length, kRing);
    window.completed();
    held.push_back(place->used);
    held_bytes += place->used;
  }
}

}  // namespace
}  // namespace migrate::rdma
