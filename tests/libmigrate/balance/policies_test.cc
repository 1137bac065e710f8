#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "libmigrate/balance/policy.h"

namespace migrate::balance {
namespace {

/// What every policy keeps to.
class Policies : public testing::TestWithParam<const Policy*> {
 protected:
  Placement best(const Job& job) const {
    const auto proposed = GetParam()->propose(job);
    EXPECT_FALSE(proposed.empty());
    return *std::ranges::min_element(
        proposed, {}, [&job](const Placement& placement) { return step_seconds(job, placement); });
  }
};

INSTANTIATE_TEST_SUITE_P(All, Policies, testing::ValuesIn(kPolicies), [](const auto& each) {
  std::string name(each.param->word);
  std::erase(name, '-');
  return name;
});

Job job_of(std::size_t ranks, std::size_t hosts) {
  Job job;
  job.hosts.assign(hosts, {.processors = 2});
  job.ranks.assign(ranks, {.work_s = 1, .memory_bytes = 10});
  return job;
}

TEST_P(Policies, AreFoundByTheirWord) {
  EXPECT_EQ(find_policy(GetParam()->word), GetParam());
}

TEST_P(Policies, LeaveWhatIsEvenAsItIs) {
  Job job = job_of(8, 2);
  for (std::size_t rank = 4; rank < 8; ++rank) {
    job.ranks[rank].host = 1;
  }
  EXPECT_EQ(best(job), current_placement(job));
}

TEST_P(Policies, LevelAJobThatIsOnOneHost) {
  const Job job = job_of(16, 4);
  EXPECT_DOUBLE_EQ(step_seconds(job, best(job)), step_bound(job));
}

TEST_P(Policies, GiveSlowHostsLess) {
  Job job = job_of(12, 2);
  job.hosts[1].speed = 0.5;
  EXPECT_DOUBLE_EQ(step_seconds(job, best(job)), step_bound(job));
}

TEST_P(Policies, LeaveAHostThatIsNotUsable) {
  Job job = job_of(8, 3);
  job.hosts[0].usable = false;
  const Placement placement = best(job);
  EXPECT_EQ(std::ranges::count(placement, 0U), 0);
  EXPECT_DOUBLE_EQ(step_seconds(job, placement), step_bound(job));
}

TEST_P(Policies, MoveNobodyThatCannotBeMoved) {
  Job job = job_of(8, 2);
  for (Rank& rank : job.ranks) {
    rank.movable = false;
  }
  for (const Placement& placement : GetParam()->propose(job)) {
    EXPECT_EQ(placement, current_placement(job));
  }
}

TEST_P(Policies, KeepToTheMemoryOfHosts) {
  Job job = job_of(8, 2);
  job.hosts[1].memory_bytes = 25;
  for (const Placement& placement : GetParam()->propose(job)) {
    EXPECT_LE(std::ranges::count(placement, 1U), 2);
  }
}

TEST_P(Policies, HaveNothingToSayOfAJobWithoutAHostToGoTo) {
  Job job = job_of(2, 1);
  job.hosts[0].usable = false;
  for (const Placement& placement : GetParam()->propose(job)) {
    EXPECT_EQ(placement, current_placement(job));
  }
}

TEST(FindPolicy, KnowsNoOther) {
  EXPECT_EQ(find_policy("best"), nullptr);
}

TEST(GreedyRefine, KeepsThoseTogetherWhoTalkMuch) {
  Job job = job_of(8, 2);
  job.link_bytes_per_s = 100;
  job.traffic = {{0, 1, 300}, {2, 3, 300}, {4, 5, 300}, {6, 7, 300}};
  const Placement none = current_placement(job);
  for (const Placement& placement : kGreedyRefine.propose(job)) {
    if (placement != none) {
      EXPECT_LT(step_seconds(job, placement), 6) << "pairs were torn apart";
    }
  }
}

}  // namespace
}  // namespace migrate::balance
