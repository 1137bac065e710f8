#include "pager/arrival_trace.h"

#include <gtest/gtest.h>

namespace migrate {
namespace {

constexpr PageRange pages(std::uint64_t first, std::uint64_t count) {
  return {first * kPageBytes, count};
}

TEST(ArrivalTrace, NotesWhatCameWhenAndHow) {
  ArrivalTrace trace(8);
  trace.note(ArrivalWay::kFault, pages(5, 1), 10);
  trace.note(ArrivalWay::kPush, pages(6, 3), 20);
  ASSERT_EQ(trace.all().size(), 2U);
  EXPECT_EQ(trace.all()[1].at_us, 20);
  EXPECT_EQ(trace.all()[1].pages, pages(6, 3));
  EXPECT_EQ(to_string(trace.all()[1].way), "push");
}

TEST(ArrivalTrace, NeighboursOfAMomentAreOneRun) {
  ArrivalTrace trace(8);
  trace.note(ArrivalWay::kPush, pages(0, 2), 10);
  trace.note(ArrivalWay::kPush, pages(2, 2), 500);
  trace.note(ArrivalWay::kPush, pages(4, 2), 5000);   // later
  trace.note(ArrivalWay::kFault, pages(6, 1), 5000);  // in another way
  trace.note(ArrivalWay::kFault, pages(8, 1), 5000);  // elsewhere
  ASSERT_EQ(trace.all().size(), 4U);
  EXPECT_EQ(trace.all()[0].pages, pages(0, 4));
}

TEST(ArrivalTrace, WhatThereIsNoRoomForIsCounted) {
  ArrivalTrace trace(1);
  trace.note(ArrivalWay::kZero, pages(0, 1), 0);
  trace.note(ArrivalWay::kZero, pages(8, 7), 0);
  EXPECT_EQ(trace.all().size(), 1U);
  EXPECT_EQ(trace.left_out(), 7U);
}

TEST(ArrivalTrace, WithoutRoomNothingIsNoted) {
  ArrivalTrace trace(0);
  trace.note(ArrivalWay::kPush, pages(0, 1));
  EXPECT_TRUE(trace.all().empty());
  EXPECT_EQ(trace.left_out(), 0U);
}

}  // namespace
}  // namespace migrate
