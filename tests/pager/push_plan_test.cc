#include "pager/internal/push_plan.h"

#include <gtest/gtest.h>

#include <random>
#include <set>

namespace migrate {
namespace {

std::uint64_t address_at(std::uint64_t page) {
  return page * kPageBytes;
}

TEST(PushPlan, FollowsTheLastFault) {
  PushPlan plan({{address_at(10), 100}, {address_at(500), 100}});
  plan.follow(address_at(550));
  std::vector<PageRange> runs;
  plan.next_batch(1, 20, 8, runs);
  ASSERT_EQ(runs.size(), 1U);
  EXPECT_EQ(runs[0], (PageRange{address_at(550), 20}));
  plan.follow(address_at(200));  // between the ranges
  plan.next_batch(2, 20, 8, runs);
  EXPECT_EQ(runs[0], (PageRange{address_at(500), 20}));
}

TEST(PushPlan, WhatIsHeldBackComesWhenItIsReleased) {
  PushPlan plan({{address_at(10), 10}, {address_at(30), 10}});
  plan.hold_back({address_at(15), 20});  // five pages of each
  plan.mark_sent({address_at(16), 1});   // asked for
  EXPECT_EQ(plan.unsent_pages(), 10U);
  std::vector<PageRange> runs;
  plan.next_batch(1, 100, 8, runs);
  EXPECT_EQ(runs, (std::vector<PageRange>{{address_at(10), 5}, {address_at(35), 5}}));
  plan.next_batch(2, 100, 8, runs);
  EXPECT_TRUE(runs.empty());
  EXPECT_TRUE(plan.release());
  EXPECT_FALSE(plan.release());
  plan.next_batch(2, 100, 8, runs);
  EXPECT_EQ(runs, (std::vector<PageRange>{
                      {address_at(15), 1}, {address_at(17), 3}, {address_at(30), 5}}));
  EXPECT_TRUE(plan.confirm(2));
  EXPECT_EQ(plan.confirmed_pages(), 19U);
}

TEST(PushPlan, WhatIsPreferredComesFirst) {
  PushPlan plan({{address_at(10), 10}, {address_at(30), 10}});
  plan.prefer({{address_at(35), 100}, {address_at(12), 2}});
  plan.follow(address_at(18));
  std::vector<PageRange> runs;
  plan.next_batch(1, 100, 8, runs);
  EXPECT_EQ(runs, (std::vector<PageRange>{{address_at(35), 5}}));
  plan.next_batch(2, 100, 8, runs);
  EXPECT_EQ(runs, (std::vector<PageRange>{{address_at(12), 2}}));
  plan.next_batch(3, 100, 8, runs);
  EXPECT_EQ(runs, (std::vector<PageRange>{{address_at(14), 6}, {address_at(30), 5}}));
  plan.next_batch(4, 100, 8, runs);
  EXPECT_EQ(runs, (std::vector<PageRange>{{address_at(10), 2}}));
}

TEST(PushPlan, PushesEveryPageOnce) {
  std::mt19937 random(3);
  std::vector<PageRange> present;
  std::set<std::uint64_t> wanted;
  std::uint64_t page = 1;
  for (int i = 0; i < 200; ++i) {
    const std::uint64_t count = 1 + random() % 40;
    present.push_back({address_at(page), count});
    for (std::uint64_t j = 0; j < count; ++j) {
      wanted.insert(page + j);
    }
    page += count + 1 + random() % 10;
  }
  PushPlan plan(present);
  EXPECT_EQ(plan.present_pages(), wanted.size());
  std::uint64_t sequence = 0;
  std::vector<PageRange> runs;
  while (plan.unsent_pages() > 0) {
    if (random() % 3 == 0) {
      plan.follow(address_at(random() % page));
    }
    if (random() % 5 == 0) {
      const PageRange asked{address_at(random() % page), 1 + random() % 16};
      plan.mark_sent(asked);
      for (std::uint64_t i = 0; i < asked.page_count; ++i) {
        wanted.erase(asked.start / kPageBytes + i);
      }
    }
    plan.next_batch(++sequence, 64, 8, runs);
    ASSERT_LE(runs.size(), 8U);
    for (const PageRange& run : runs) {
      for (std::uint64_t i = 0; i < run.page_count; ++i) {
        ASSERT_EQ(wanted.erase(run.start / kPageBytes + i), 1U);
      }
    }
  }
  EXPECT_TRUE(wanted.empty());
}

TEST(PushPlan, GivesBackOnlyWhatIsConfirmed) {
  PushPlan plan({{address_at(0), 100}});
  std::vector<PageRange> runs;
  plan.next_batch(1, 30, 8, runs);
  plan.next_batch(2, 30, 8, runs);
  EXPECT_TRUE(plan.take_confirmed().empty());
  EXPECT_FALSE(plan.confirm(3));
  EXPECT_TRUE(plan.confirm(1));
  EXPECT_FALSE(plan.taken({address_at(0), 30}));
  const auto taken = plan.take_confirmed();
  ASSERT_EQ(taken.size(), 1U);
  EXPECT_EQ(taken[0], (PageRange{address_at(0), 30}));
  EXPECT_TRUE(plan.taken({address_at(29), 5}));
  EXPECT_FALSE(plan.taken({address_at(30), 5}));
  const auto left =
      plan.not_taken({address_at(28), 5});  // The rest of a request still has an answer.
  ASSERT_EQ(left.size(), 1U);
  EXPECT_EQ(left[0], (PageRange{address_at(30), 3}));
  plan.restart();  // the second batch may be lost
  EXPECT_EQ(plan.unsent_pages(), 70U);
  plan.next_batch(3, 1000, 8, runs);
  EXPECT_EQ(runs[0], (PageRange{address_at(60), 40}));
  plan.next_batch(4, 1000, 8, runs);
  EXPECT_EQ(runs[0], (PageRange{address_at(30), 30}));
}

}  // namespace
}  // namespace migrate
