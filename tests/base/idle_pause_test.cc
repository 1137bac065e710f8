#include "base/idle_pause.h"

#include <gtest/gtest.h>

namespace migrate {
namespace {

TEST(IdlePause, GrowsWhileNothingMoves) {
  IdlePause pause(20, 100);
  EXPECT_EQ(pause.next_ms(7), 20);
  EXPECT_EQ(pause.next_ms(7), 40);
  EXPECT_EQ(pause.next_ms(7), 80);
  EXPECT_EQ(pause.next_ms(7), 100);
  EXPECT_EQ(pause.next_ms(7), 100);
}

TEST(IdlePause, IsShortAgainOnceSomethingMoves) {
  IdlePause pause(20, 100);
  pause.next_ms(7);
  pause.next_ms(7);
  EXPECT_EQ(pause.next_ms(6), 20);
  EXPECT_EQ(pause.next_ms(6), 40);
}

}  // namespace
}  // namespace migrate
