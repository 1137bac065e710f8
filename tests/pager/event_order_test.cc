#include "pager/internal/event_order.h"

#include <gtest/gtest.h>

namespace migrate {
namespace {

constexpr std::uint64_t kP = 0x100000;
constexpr std::uint64_t kQ = 0x200000;
constexpr std::uint64_t kZ = 0x300000;
constexpr std::uint64_t kRangePages = 16;

class EventOrderTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(map_.add({{kP, kRangePages}, kP}));
    ASSERT_TRUE(map_.add({{kZ, kRangePages}, kZ}));
  }

  std::uint64_t source_at(std::uint64_t address) const {
    const auto part = map_.find(address);
    return part ? part->source_address : 0;
  }

  PageMap map_;
  EventOrder order_;
};

TEST_F(EventOrderTest, TheUnmapOfARemapSparesWhatMovedThereSince) {
  order_.remapped(map_, {kP, kRangePages}, kQ);
  order_.remapped(map_, {kZ, kRangePages}, kP);
  order_.unmapped(map_, {kP, kRangePages});
  EXPECT_EQ(source_at(kQ), kP);
  EXPECT_EQ(source_at(kP), kZ);
  order_.unmapped(map_, {kZ, kRangePages});
  EXPECT_FALSE(order_.awaits());
  order_.unmapped(map_, {kP, kRangePages});
  EXPECT_EQ(source_at(kP), 0U);
  EXPECT_EQ(map_.owed_pages(), kRangePages);
}

TEST_F(EventOrderTest, ARemapWaitsForTheOneThatMadeRoom) {
  order_.remapped(map_, {kZ, kRangePages}, kP);
  EXPECT_TRUE(order_.awaits());
  EXPECT_EQ(source_at(kP), kP);
  order_.remapped(map_, {kP, kRangePages}, kQ);
  EXPECT_EQ(source_at(kQ), kP);
  EXPECT_EQ(source_at(kP), kZ);
  EXPECT_EQ(map_.owed_pages(), 2 * kRangePages);
}

TEST_F(EventOrderTest, ARemapWaitsForTheUnmapThatMadeRoom) {
  order_.remapped(map_, {kZ, kRangePages}, kP);
  order_.unmapped(map_, {kP, kRangePages});
  EXPECT_EQ(source_at(kP), kZ);
  EXPECT_EQ(map_.owed_pages(), kRangePages);
}

TEST_F(EventOrderTest, WhatDoesNotComeIsNotAwaitedForEver) {
  order_.remapped(map_, {kZ, kRangePages}, kP);
  order_.settled(map_);
  EXPECT_FALSE(order_.awaits());
  EXPECT_EQ(source_at(kP), kZ);
  order_.remapped(map_, {kP, kRangePages}, kQ);  // MREMAP_DONTUNMAP
  order_.settled(map_);
  order_.remapped(map_, {kQ, kRangePages}, kP);
  order_.settled(map_);
  order_.unmapped(map_, {kP, kRangePages});
  EXPECT_EQ(map_.owed_pages(), 0U);
}

}  // namespace
}  // namespace migrate
