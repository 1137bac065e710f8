#include "libmigrate/balance/leaving.h"

#include <gtest/gtest.h>

namespace migrate::balance {
namespace {

constexpr std::uint64_t kMib = 1 << 20;

TEST(Leaving, WhatIsAwaySoonestLeavesFirst) {
  const std::vector<Leaving> processes = {{3 * kMib, ""}, {1 * kMib, ""}, {3 * kMib, "x"}, {0, ""}};
  EXPECT_EQ(order_of_leaving(processes, {}), (std::vector<std::size_t>{3, 1, 0, 2}));
  EXPECT_TRUE(order_of_leaving({}, {}).empty());
}

TEST(Leaving, TakesWhatMovesTook) {
  const MoveCosts costs{.stop_s = 0.5, .bytes_per_s = kMib};
  EXPECT_DOUBLE_EQ(seconds_to_leave({4 * kMib, ""}, costs), 4.5);
}

TEST(Leaving, GoesHomeOrWhereMostIsFree) {
  const std::vector<Refuge> hosts = {{"a:1", 4 * kMib}, {"b:1", 9 * kMib}, {"c:1", 2 * kMib}};
  EXPECT_EQ(refuges_of({kMib, ""}, hosts), (std::vector<std::size_t>{1, 0, 2}));
  EXPECT_EQ(refuges_of({kMib, "c:1"}, hosts), (std::vector<std::size_t>{2, 1, 0}));
  EXPECT_EQ(refuges_of({kMib, "elsewhere:1"}, hosts), (std::vector<std::size_t>{1, 0, 2}));
}

TEST(Leaving, NotWhereThereIsNoRoom) {
  const std::vector<Refuge> hosts = {{"a:1", 4 * kMib}, {"b:1", 9 * kMib}};
  EXPECT_EQ(refuges_of({5 * kMib, "a:1"}, hosts), (std::vector<std::size_t>{1}));
  EXPECT_TRUE(refuges_of({10 * kMib, ""}, hosts).empty());
}

}  // namespace
}  // namespace migrate::balance
