#include "pager/internal/push_order.h"

#include <gtest/gtest.h>

#include <set>

namespace migrate {
namespace {

constexpr std::uint64_t kBatchBytes = std::uint64_t{1} << 20U;
constexpr std::uint64_t kBatchPages = kBatchBytes / kPageBytes;
constexpr std::uint64_t kPushBase = std::uint64_t{1} << 32U;
constexpr std::uint64_t kFarAway = std::uint64_t{1} << 30U;

TEST(PushOrder, GoesOnWhereItWasWithoutRequests) {
  PushOrder order;
  EXPECT_FALSE(order.next(kBatchBytes));
}

TEST(PushOrder, FollowsARequest) {
  PushOrder order;
  order.note_request({kPushBase, 1});
  EXPECT_EQ(order.next(kBatchBytes), kPushBase + kPageBytes);
  EXPECT_FALSE(order.next(kBatchBytes));  // One that continues nothing is no walk.
}

TEST(PushOrder, GoesAheadOfAWalk) {
  PushOrder order;
  order.note_request({kPushBase, 1});
  order.note_request({kPushBase + kPageBytes, 16});
  const std::uint64_t ahead = kPushBase + 17 * kPageBytes;
  EXPECT_EQ(order.next(kBatchBytes), ahead);
  EXPECT_EQ(order.next(kBatchBytes), ahead + kBatchBytes);
  order.note_request({ahead + 2 * kBatchBytes, 1});  // The walk has caught up.
  EXPECT_EQ(order.next(kBatchBytes), ahead + 2 * kBatchBytes + kPageBytes);
}

TEST(PushOrder, GoesDownWithAWalkThatDoes) {
  PushOrder order;
  order.note_request({kPushBase, 1});
  order.note_request({kPushBase - kPageBytes, 1});
  EXPECT_EQ(order.next(kBatchBytes), kPushBase - kPageBytes - kBatchBytes);
  EXPECT_EQ(order.next(kBatchBytes), kPushBase - kPageBytes - 2 * kBatchBytes);
}

TEST(PushOrder, ServesSeveralWalksInTurn) {
  PushOrder order;
  for (const std::uint64_t start : {kPushBase, kPushBase + kFarAway, kPushBase + 2 * kFarAway}) {
    order.note_request({start, 1});
    order.note_request({start + kPageBytes, 1});
  }
  std::set<std::uint64_t> places;
  for (int i = 0; i < 3; ++i) {
    places.insert(order.next(kBatchBytes).value_or(0) / kFarAway);
  }
  EXPECT_EQ(places.size(), 3U);
}

TEST(PushOrder, LeavesAWalkThatAsksForNothingMore) {
  PushOrder order;
  order.note_request({kPushBase, 1});
  order.note_request({kPushBase + kPageBytes, 1});
  int batches = 0;
  while (order.next(kBatchBytes) && batches < 1000) {
    ++batches;
  }
  EXPECT_GT(batches, 1);
  EXPECT_LT(batches, 100);
}

TEST(PushOrder, WhatWasOvertakenChangesNothing) {
  PushOrder order;
  order.note_request({kPushBase, 1});
  order.note_request({kPushBase + kPageBytes, 1});
  const std::uint64_t first = order.next(kBatchBytes).value_or(0);
  order.note_request({first + 5 * kPageBytes, 1});  // It is in the batch.
  EXPECT_EQ(order.next(kBatchBytes), first + kBatchBytes);
}

TEST(PushOrder, StaysInTheAddressSpace) {
  PushOrder order;
  order.note_request({2 * kPageBytes, 1});
  order.note_request({kPageBytes, 1});
  EXPECT_EQ(order.next(kBatchBytes), 0U);
  EXPECT_EQ(order.next(kBatchBytes), 0U);
}

TEST(PushOrder, AWalkAtRandomIsFollowedToItsLatestPlaces) {
  PushOrder order;
  for (std::uint64_t i = 0; i < 100; ++i) {
    order.note_request({kPushBase + i * kFarAway, 1});
  }
  EXPECT_EQ(order.next(kBatchBytes), kPushBase + 99 * kFarAway + kPageBytes);
  EXPECT_LT(kBatchPages, kFarAway / kPageBytes);
}

}  // namespace
}  // namespace migrate
