#include "libmigrate/balance/move_costs.h"

#include <gtest/gtest.h>

namespace migrate::balance {
namespace {

constexpr double kMemory = 1e8;

TEST(LearnedCostsTest, TheFirstMoveIsAllThatIsKnown) {
  LearnedCosts learned;
  learned.add({.memory_bytes = kMemory, .stop_s = 0.05, .transfer_s = 2});
  EXPECT_DOUBLE_EQ(learned.costs().stop_s, 0.05);
  EXPECT_NEAR(learned.costs().transfer_s(kMemory), 2, 1e-9);
  EXPECT_NEAR(learned.costs().transfer_s(kMemory / 2), 1, 1e-9);
}

TEST(LearnedCostsTest, ComesToWhatMovesNowCost) {
  LearnedCosts learned;
  learned.add({.memory_bytes = kMemory, .stop_s = 0.5, .transfer_s = 20});
  for (int i = 0; i < 20; ++i) {
    learned.add({.memory_bytes = kMemory, .stop_s = 0.05, .transfer_s = 2});
  }
  EXPECT_NEAR(learned.costs().stop_s, 0.05, 0.005);
  EXPECT_NEAR(learned.costs().transfer_s(kMemory), 2, 0.2);
}

TEST(LearnedCostsTest, ANothingIsNoRate) {
  LearnedCosts learned;
  learned.add({.memory_bytes = kMemory, .stop_s = 0, .transfer_s = 0});
  EXPECT_GT(learned.costs().transfer_s(kMemory), 0);
  const MoveCosts before = learned.costs();
  learned.add({.memory_bytes = 0, .stop_s = 0, .transfer_s = 1});
  EXPECT_DOUBLE_EQ(learned.costs().bytes_per_s, before.bytes_per_s);
}

}  // namespace
}  // namespace migrate::balance
