#include "libmigrate/balance/job.h"

#include <gtest/gtest.h>

#include <cmath>

namespace migrate::balance {
namespace {

Job two_hosts() {
  Job job;
  job.hosts = {{.processors = 2}, {.processors = 2, .speed = 0.5}};
  job.ranks = {{.work_s = 1, .host = 0}, {.work_s = 1, .host = 0}, {.work_s = 1, .host = 1}};
  return job;
}

TEST(BalancedJob, AHostTakesAsLongAsItsProcessorsNeed) {
  EXPECT_DOUBLE_EQ(step_on({.processors = 2}, {.work_s = 4, .largest_s = 1}), 2);
  EXPECT_DOUBLE_EQ(step_on({.processors = 2, .speed = 0.5}, {.work_s = 4, .largest_s = 1}), 4);
}

TEST(BalancedJob, NoRankUsesTwoProcessorsAtOnce) {
  EXPECT_DOUBLE_EQ(step_on({.processors = 8}, {.work_s = 4, .largest_s = 3}), 3);
}

TEST(BalancedJob, HalfAProcessorTakesTwiceAsLong) {
  EXPECT_DOUBLE_EQ(step_on({.processors = 0.5}, {.work_s = 1, .largest_s = 1}), 2);
}

TEST(BalancedJob, AHostWithoutProcessorsIsNeverDone) {
  EXPECT_TRUE(std::isinf(step_on({.processors = 0}, {.work_s = 1, .largest_s = 1})));
  EXPECT_DOUBLE_EQ(step_on({.processors = 0}, {}), 0);
}

TEST(BalancedJob, AStepTakesAsLongAsTheSlowestHost) {
  const Job job = two_hosts();
  EXPECT_DOUBLE_EQ(step_seconds(job, current_placement(job)), 2);
  EXPECT_DOUBLE_EQ(step_seconds(job, {0, 0, 0}), 1.5);
}

TEST(BalancedJob, AHostThatHoldsUpRanksIsBestLeftByAll) {
  Job job = two_hosts();
  job.hosts[0].delay_s = 3;
  EXPECT_DOUBLE_EQ(step_seconds(job, {0, 0, 1}), 4);
  EXPECT_DOUBLE_EQ(step_seconds(job, {0, 1, 1}), 4);
  EXPECT_DOUBLE_EQ(step_seconds(job, {1, 1, 1}), 3);
}

TEST(BalancedJob, WhatIsSentToOtherHostsTakesTime) {
  Job job = two_hosts();
  job.link_bytes_per_s = 100;
  job.by_home = {.message_s = 0, .byte_s = 0};
  job.traffic = {{0, 1, 1000}, {1, 2, 50}};
  EXPECT_DOUBLE_EQ(step_seconds(job, {0, 0, 1}), 2.5);
  EXPECT_DOUBLE_EQ(step_seconds(job, {0, 0, 0}), 1.5);
}

TEST(BalancedJob, MessagesOfMovedRanksGoByHome) {
  Job job = two_hosts();
  job.by_home = {.message_s = 0.1, .byte_s = 0.01};
  job.traffic = {{0, 1, 10, 1}, {1, 2, 0, 3}};
  EXPECT_DOUBLE_EQ(by_home_seconds(job, current_placement(job)), 0);
  Placement placement = current_placement(job);
  placement[0] = 1 - placement[0];
  EXPECT_DOUBLE_EQ(by_home_seconds(job, placement), 0.2);
  Job silent = job;
  silent.traffic.clear();
  EXPECT_NEAR(step_seconds(job, placement), step_seconds(silent, placement) + 0.2, 1e-6);
  job.ranks[1].by_home = true;
  EXPECT_DOUBLE_EQ(by_home_seconds(job, placement), 0.7) << "of rank 1: 2 * 0.2 + 3 * 0.1";
  const std::vector<double> prices = prices_of_moving(job);
  EXPECT_DOUBLE_EQ(prices[0], 0.2);
  EXPECT_DOUBLE_EQ(prices[1], 0) << "it has been moved";
}

TEST(BalancedJob, TheBoundIsThatOfAllProcessorsOrOfTheLargestRank) {
  Job job = two_hosts();
  EXPECT_DOUBLE_EQ(step_bound(job), 1);
  job.ranks[2].work_s = 5;
  EXPECT_DOUBLE_EQ(step_bound(job), 5);
  job.hosts[0].usable = false;
  EXPECT_DOUBLE_EQ(step_bound(job), 10);
  job.hosts[1].usable = false;
  EXPECT_TRUE(std::isinf(step_bound(job)));
}

TEST(BalancedJob, WithoutWorkNothingTakesTime) {
  Job job;
  EXPECT_DOUBLE_EQ(step_bound(job), 0);
  EXPECT_DOUBLE_EQ(step_seconds(job, {}), 0);
}

}  // namespace
}  // namespace migrate::balance
