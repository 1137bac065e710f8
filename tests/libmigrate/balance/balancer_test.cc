#include "libmigrate/balance/balancer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

namespace migrate::balance {
namespace {

/// Eight ranks on the first of two hosts, which are equal.
class BalancerTest : public testing::Test {
 protected:
  BalancerTest() {
    job.hosts.assign(2, {.processors = 2});
    job.ranks.assign(8, {.work_s = 1, .memory_bytes = 1e6});
  }
  void carry_out(const Plan& plan) {
    for (const PlannedMove& move : plan.moves) {
      ASSERT_EQ(job.ranks[move.rank].host, move.from);
      job.ranks[move.rank].host = move.to;
      job.ranks[move.rank].rest_s = 0;
    }
  }
  Balancer balancer(BalancerSettings settings = {}) const { return {kGreedyRefine, settings}; }

  Job job;
};

TEST_F(BalancerTest, MovesWhatPays) {
  const Plan plan = balancer().decide(job);
  EXPECT_EQ(plan.moves.size(), 4U);
  EXPECT_DOUBLE_EQ(plan.step_s, 4);
  EXPECT_DOUBLE_EQ(plan.step_after_s, 2);
  EXPECT_DOUBLE_EQ(plan.bound_s, 2);
  EXPECT_NE(plan.reason, "");
}

TEST_F(BalancerTest, NoRankIsMovedTwiceInAPlan) {
  std::set<std::uint32_t> ranks;
  for (const PlannedMove& move : balancer().decide(job).moves) {
    EXPECT_NE(move.from, move.to);
    EXPECT_TRUE(ranks.insert(move.rank).second);
  }
}

TEST_F(BalancerTest, LeavesALittleAlone) {
  for (std::size_t rank = 4; rank < 8; ++rank) {
    job.ranks[rank].host = 1;
    job.ranks[rank].work_s = 0.97;
  }
  const Plan plan = balancer().decide(job);
  EXPECT_TRUE(plan.moves.empty());
  EXPECT_DOUBLE_EQ(plan.step_after_s, plan.step_s);
}

TEST_F(BalancerTest, LeavesAloneWhatCostsMoreThanItBrings) {
  BalancerSettings settings;
  settings.horizon_s = 1;
  settings.costs = {.stop_s = 10};
  EXPECT_TRUE(balancer(settings).decide(job).moves.empty());
}

TEST_F(BalancerTest, KeepsToItsBudget) {
  BalancerSettings settings;
  settings.most_moves = 2;
  const Plan plan = balancer(settings).decide(job);
  EXPECT_EQ(plan.moves.size(), 2U);
  EXPECT_DOUBLE_EQ(plan.step_after_s, 3);
}

TEST_F(BalancerTest, LetsARankRestThatWasJustMoved) {
  for (Rank& rank : job.ranks) {
    rank.rest_s = 1;
  }
  EXPECT_TRUE(balancer().decide(job).moves.empty());
}

TEST_F(BalancerTest, AHostThatMustBeLeftIsLeftWhateverItCosts) {
  job.hosts[0].usable = false;
  BalancerSettings settings;
  settings.most_moves = 1;
  settings.costs = {.stop_s = 1000};
  job.ranks[0].rest_s = 0;
  const Plan plan = balancer(settings).decide(job);
  EXPECT_EQ(plan.moves.size(), 8U);
}

TEST_F(BalancerTest, OneWrongMeasurementMovesNobody) {
  for (std::size_t rank = 4; rank < 8; ++rank) {
    job.ranks[rank].host = 1;
  }
  BalancerSettings settings;
  settings.newest = 0.1;
  Balancer balancer = this->balancer(settings);
  EXPECT_TRUE(balancer.decide(job).moves.empty());
  Job wrong = job;
  wrong.ranks[0].work_s = 2;
  EXPECT_TRUE(balancer.decide(wrong).moves.empty());
}

TEST_F(BalancerTest, ThreeBrokenPromisesStopIt) {
  BalancerSettings settings;
  settings.rest_s = 0;
  Balancer balancer = this->balancer(settings);
  for (int i = 0; i < Balancer::kMostBrokenPromises; ++i) {
    EXPECT_FALSE(balancer.decide(job).moves.empty()) << "nothing moved, whatever it planned";
    EXPECT_EQ(balancer.broken_promises(), i);
  }
  const Plan plan = balancer.decide(job);
  EXPECT_TRUE(balancer.has_stopped());
  EXPECT_TRUE(plan.moves.empty());
  EXPECT_NE(plan.reason.find("greedy-refine"), std::string::npos) << plan.reason;
}

TEST_F(BalancerTest, TellsWhatCameOfThePlanBefore) {
  BalancerSettings settings;
  settings.rest_s = 0;
  Balancer balancer = this->balancer(settings);
  const Plan plan = balancer.decide(job);
  EXPECT_FALSE(plan.word);
  carry_out(plan);
  const Plan next = balancer.decide(job);
  ASSERT_TRUE(next.word);
  EXPECT_TRUE(next.word->kept);
  EXPECT_DOUBLE_EQ(next.word->promised, 0.5);
  EXPECT_DOUBLE_EQ(next.word->came, 0.5);
  EXPECT_FALSE(balancer.decide(job).word);
}

TEST_F(BalancerTest, WhatNoModelKnowsStaysAsItIs) {
  Balancer balancer = this->balancer();
  job.step_s = 8;  // Twice what the works make of it.
  const Plan plan = balancer.decide(job);
  EXPECT_DOUBLE_EQ(plan.step_s, 8);
  EXPECT_DOUBLE_EQ(plan.step_after_s, 6);
  carry_out(plan);
  job.step_s = 6;
  const Plan next = balancer.decide(job);
  ASSERT_TRUE(next.word);
  EXPECT_DOUBLE_EQ(next.word->came, 0.25);
  EXPECT_EQ(balancer.broken_promises(), 0);
}

TEST_F(BalancerTest, LeavesAloneWhoWaitsForMessagesNearlyAlways) {
  job.step_s = 100;
  EXPECT_TRUE(balancer().decide(job).moves.empty());
}

TEST_F(BalancerTest, MovesWhatLasts) {
  BalancerSettings settings;
  settings.confirmations = 2;
  settings.newest = 1;
  Balancer balancer = this->balancer(settings);
  Job even = job;
  for (std::size_t rank = 4; rank < 8; ++rank) {
    even.ranks[rank].host = 1;
  }
  EXPECT_TRUE(balancer.decide(job).moves.empty());
  EXPECT_TRUE(balancer.decide(even).moves.empty());
  EXPECT_TRUE(balancer.decide(job).moves.empty());
  EXPECT_FALSE(balancer.decide(job).moves.empty());
}

TEST_F(BalancerTest, TakesBackWhatMadeTheJobSlower) {
  job.step_s = 4;
  Balancer balancer = this->balancer();
  const Placement before = current_placement(job);
  carry_out(balancer.decide(job));
  job.step_s = 10;  // Messages to those that were moved take longer than all else.
  const Plan back = balancer.decide(job);
  EXPECT_EQ(back.moves.size(), 4U) << back.reason;
  carry_out(back);
  EXPECT_EQ(current_placement(job), before);
  job.step_s = 4;
  for (Rank& rank : job.ranks) {
    rank.rest_s = 1000;
  }
  EXPECT_TRUE(balancer.decide(job).moves.empty()) << "what lacked so much is not tried again";
  EXPECT_EQ(balancer.broken_promises(), 1);
}

TEST_F(BalancerTest, IsJudgedByTwoMeasurements) {
  BalancerSettings settings;
  settings.intervals_to_judge = 2;
  settings.rest_s = 0;
  Balancer balancer = this->balancer(settings);
  job.step_s = 4;
  carry_out(balancer.decide(job));
  job.step_s = 4;  // As if nothing had come of it,
  Plan plan = balancer.decide(job);
  EXPECT_FALSE(plan.word);
  EXPECT_TRUE(plan.moves.empty());
  job.step_s = 2;  // but that was a moment.
  plan = balancer.decide(job);
  ASSERT_TRUE(plan.word);
  EXPECT_DOUBLE_EQ(plan.word->came, 0.25);
  EXPECT_TRUE(plan.word->kept);
}

TEST_F(BalancerTest, WhatIsClearlyWorseIsTakenBackAtOnce) {
  BalancerSettings settings;
  settings.intervals_to_judge = 2;
  Balancer balancer = this->balancer(settings);
  job.step_s = 4;
  carry_out(balancer.decide(job));
  job.step_s = 10;
  const Plan plan = balancer.decide(job);
  ASSERT_TRUE(plan.word);
  EXPECT_EQ(plan.moves.size(), 4U) << plan.reason;
}

TEST_F(BalancerTest, WhoIsToLeaveDoesNotWaitForAPlanToBeJudged) {
  BalancerSettings settings;
  settings.intervals_to_judge = 2;
  Balancer balancer = this->balancer(settings);
  carry_out(balancer.decide(job));
  job.hosts[1].usable = false;
  EXPECT_EQ(balancer.decide(job).moves.size(), 4U);
}

TEST_F(BalancerTest, RanksThatTalkTooMuchStay) {
  // All even ones talk, so that a move of one would cost more than it brings.
  for (std::uint32_t rank = 0; rank + 2 < 8; rank += 2) {
    job.traffic.push_back({rank, rank + 2, 0, 1e5});
  }
  for (const Policy* policy : kPolicies) {
    const Plan plan = Balancer(*policy, {}).decide(job);
    EXPECT_FALSE(plan.moves.empty()) << policy->word;
    for (const PlannedMove& move : plan.moves) {
      EXPECT_EQ(move.rank % 2, 1U) << policy->word;
    }
    EXPECT_DOUBLE_EQ(plan.by_home_s, 0);
  }
}

TEST_F(BalancerTest, LeavesAloneAJobInWhichAllTalkTooMuch) {
  for (std::uint32_t rank = 0; rank < 8; ++rank) {
    job.traffic.push_back({rank, (rank + 1) % 8, 0, 1e5});
  }
  EXPECT_TRUE(balancer().decide(job).moves.empty());
}

TEST_F(BalancerTest, LearnsWhatMessagesByHomeCost) {
  for (std::uint32_t rank = 0; rank < 8; ++rank) {
    job.traffic.push_back({rank, (rank + 1) % 8, 0, 1000});
  }
  BalancerSettings settings;
  settings.by_home = {.message_s = 1e-5, .byte_s = 1e-9};
  Balancer balancer = this->balancer(settings);
  job.step_s = 4;
  const Plan plan = balancer.decide(job);
  ASSERT_FALSE(plan.moves.empty());
  EXPECT_GT(plan.by_home_s, 0);
  carry_out(plan);
  for (const PlannedMove& move : plan.moves) {
    job.ranks[move.rank].by_home = true;
  }
  job.step_s = plan.step_after_s + plan.by_home_s;  // They cost twice as much as was thought.
  balancer.decide(job);
  EXPECT_NEAR(balancer.by_home().message_s, 1.5e-5, 1e-9);
  EXPECT_NEAR(balancer.by_home().byte_s, 1.5e-9, 1e-13);
}

TEST_F(BalancerTest, APlanThatWasNotCarriedOutIsNotHeldToItsWord) {
  Balancer balancer = this->balancer();
  for (int i = 0; i <= Balancer::kMostBrokenPromises; ++i) {
    EXPECT_FALSE(balancer.decide(job).moves.empty());
    balancer.withdraw();
  }
  EXPECT_EQ(balancer.broken_promises(), 0);
}

TEST_F(BalancerTest, GoesByWhatMovesTurnedOutToCost) {
  BalancerSettings settings;
  settings.horizon_s = 1;
  Balancer balancer = this->balancer(settings);
  EXPECT_FALSE(balancer.decide(job).moves.empty());
  balancer.withdraw();
  balancer.set_costs({.stop_s = 10});
  EXPECT_TRUE(balancer.decide(job).moves.empty());
}

TEST_F(BalancerTest, AKeptPromiseMakesUpForBrokenOnes) {
  BalancerSettings settings;
  settings.rest_s = 0;
  Balancer balancer = this->balancer(settings);
  balancer.decide(job);
  const Plan plan = balancer.decide(job);
  EXPECT_EQ(balancer.broken_promises(), 1);
  carry_out(plan);
  balancer.decide(job);
  EXPECT_EQ(balancer.broken_promises(), 0);
}

TEST_F(BalancerTest, AJobThatGrowsIsNoBrokenPromise) {
  Balancer balancer = this->balancer();
  carry_out(balancer.decide(job));
  for (Rank& rank : job.ranks) {
    rank.work_s *= 3;
  }
  balancer.decide(job);
  EXPECT_EQ(balancer.broken_promises(), 0);
}

TEST_F(BalancerTest, TheSameMeasurementsGiveTheSamePlan) {
  for (std::size_t rank = 0; rank < job.ranks.size(); ++rank) {
    job.ranks[rank].work_s = 1 + static_cast<double>(rank * 7 % 5);
  }
  const Plan one = balancer().decide(job);
  const Plan other = balancer().decide(job);
  EXPECT_TRUE(std::ranges::equal(one.moves, other.moves, [](const auto& a, const auto& b) {
    return a.rank == b.rank && a.from == b.from && a.to == b.to;
  }));
}

}  // namespace
}  // namespace migrate::balance
