#include "base/giving_way.h"

#include <gtest/gtest.h>

namespace migrate {
namespace {

TEST(GivingWay, IsForWhoeverHasNoProcessor) {
  EXPECT_FALSE(GivingWay::is_crowded("0.20 0.18 0.12 1/80 11206\n", 2));
  EXPECT_FALSE(GivingWay::is_crowded("0.20 0.18 0.12 2/80 11206\n", 2));
  EXPECT_TRUE(GivingWay::is_crowded("0.20 0.18 0.12 3/80 11206\n", 2));
  EXPECT_TRUE(GivingWay::is_crowded("10.20 110.18 0.12 130/2080 11206\n", 128));
  EXPECT_FALSE(GivingWay::is_crowded("10.20 110.18 0.12 128/2080 11206\n", 128));
}

TEST(GivingWay, IsNotDoneByAnUnknownText) {
  for (const char* text : {"", " ", "1 2 3", "1 2 3 ", "1 2 3 9", "1 2 3 x/80 1", "1 2 3 /80"}) {
    EXPECT_FALSE(GivingWay::is_crowded(text, 2)) << text;
  }
}

TEST(GivingWay, HasAnEnd) {
  for (const bool hurries : {false, true}) {
    GivingWay giving_way(hurries);
    for (int piece = 0; piece < 100; ++piece) {
      giving_way.worked(1 << 20);
      EXPECT_FALSE(hurries && giving_way.crowded());
    }
  }
}

}  // namespace
}  // namespace migrate
