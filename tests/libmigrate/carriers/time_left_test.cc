#include "libmigrate/carriers/time_left.h"

#include <gtest/gtest.h>

namespace migrate::carriers {
namespace {

TEST(TimeLeft, AnArmedTimerKeepsAtLeastOneUnit) {
  EXPECT_EQ(time_left(100, 30), 70U);
  EXPECT_EQ(time_left(100, 100), 1U);
  EXPECT_EQ(time_left(100, 1000), 1U);
  EXPECT_EQ(time_left(0, 1000), 0U);
}

TEST(TimeLeft, NoTimeHasGoneByWhereItIsNotKnownOrWouldGoBackwards) {
  EXPECT_EQ(time_since(10, 30), 20U);
  EXPECT_EQ(time_since(0, 30), 0U);
  EXPECT_EQ(time_since(30, 10), 0U);
  EXPECT_EQ(time_since(~0ULL, 1), 2U) << "clocks of a peer may wrap";
}

}  // namespace
}  // namespace migrate::carriers
