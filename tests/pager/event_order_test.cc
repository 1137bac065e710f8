#include "pager/internal/event_order.h"

#include <gtest/gtest.h>

namespace migrate {
namespace {

constexpr std::uint64_t kP = 0x100000;
constexpr std::uint64_t kQ = 0x200000;
constexpr std::uint64_t kZ = 0x300000;
constexpr std::uint64_t kPages = 16;

class EventOrderTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(map_.add({{kP, kPages}, kP}));
    ASSERT_TRUE(map_.add({{kZ, kPages}, kZ}));
  }

  std::uint64_t source_at(std::uint64_t address) const {
    const auto part = map_.find(address);
    return part ? part->source_address : 0;
  }

  PageMap map_;
  EventOrder order_;
};

TEST_F(EventOrderTest, TheUnmapOfARemapSparesWhatMovedThereSince) {
  order_.remapped(map_, {kP, kPages}, kQ);
  order_.remapped(map_, {kZ, kPages}, kP);
  order_.unmapped(map_, {kP, kPages});
  EXPECT_EQ(source_at(kQ), kP);
  EXPECT_EQ(source_at(kP), kZ);
  order_.unmapped(map_, {kZ, kPages});
  EXPECT_FALSE(order_.awaits());
  order_.unmapped(map_, {kP, kPages});
  EXPECT_EQ(source_at(kP), 0U);
  EXPECT_EQ(map_.owed_pages(), kPages);
}

TEST_F(EventOrderTest, ARemapWaitsForTheOneThatMadeRoom) {
  order_.remapped(map_, {kZ, kPages}, kP);
  EXPECT_TRUE(order_.awaits());
  EXPECT_EQ(source_at(kP), kP);
  order_.remapped(map_, {kP, kPages}, kQ);
  EXPECT_EQ(source_at(kQ), kP);
  EXPECT_EQ(source_at(kP), kZ);
  EXPECT_EQ(map_.owed_pages(), 2 * kPages);
}

TEST_F(EventOrderTest, ARemapWaitsForTheUnmapThatMadeRoom) {
  order_.remapped(map_, {kZ, kPages}, kP);
  order_.unmapped(map_, {kP, kPages});
  EXPECT_EQ(source_at(kP), kZ);
  EXPECT_EQ(map_.owed_pages(), kPages);
}

TEST_F(EventOrderTest, WhatDoesNotComeIsNotAwaitedForEver) {
  order_.remapped(map_, {kZ, kPages}, kP);
  order_.settled(map_);
  EXPECT_FALSE(order_.awaits());
  EXPECT_EQ(source_at(kP), kZ);
  order_.remapped(map_, {kP, kPages}, kQ);  // MREMAP_DONTUNMAP
  order_.settled(map_);
  order_.remapped(map_, {kQ, kPages}, kP);
  order_.settled(map_);
  order_.unmapped(map_, {kP, kPages});
  EXPECT_EQ(map_.owed_pages(), 0U);
}

}  // namespace
}  // namespace migrate
