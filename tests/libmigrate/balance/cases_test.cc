#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "libmigrate/balance/scenario.h"
#include "libmigrate/balance/simulation.h"

namespace migrate::balance {
namespace {

constexpr Size kSize{.ranks = 400, .hosts = 20};

Outcome play(const Scenario& scenario, const Policy* policy) {
  SimulationOptions options;
  options.policy = policy;
  options.settings.most_moves = 50;
  options.settings.confirmations = 2;
  options.settings.intervals_to_judge = 2;
  return simulate(scenario, options);
}

Scenario made(std::string_view word) {
  const auto all = made_up();
  return std::ranges::find(all, word, &MadeUp::word)->make(kSize, 7);
}

class Cases : public testing::TestWithParam<std::string> {};

INSTANTIATE_TEST_SUITE_P(MadeUp, Cases, testing::ValuesIn([] {
                           std::vector<std::string> words;
                           for (const MadeUp& each : made_up()) {
                             words.emplace_back(each.word);
                           }
                           return words;
                         }()),
                         [](const auto& each) {
                           std::string name = each.param;
                           std::erase(name, '-');
                           return name;
                         });

TEST_P(Cases, GreedyRefineComesNearTheBound) {
  const Outcome outcome = play(made(GetParam()), &kGreedyRefine);
  const Interval& last = outcome.intervals.back();
  EXPECT_LE(last.step_s, 1.1 * last.bound_s);
  EXPECT_LT(outcome.broken_promises, Balancer::kMostBrokenPromises);
}

TEST_P(Cases, NoPolicyMakesItWorse) {
  if (GetParam() == "drained") {
    return;  // With a host less, it is slower.
  }
  const double without = play(made(GetParam()), nullptr).steps;
  for (const Policy* policy : kPolicies) {
    EXPECT_GE(play(made(GetParam()), policy).steps, 0.999 * without) << policy->word;
  }
}

TEST(BalancedCases, ABalancedJobIsLeftAlone) {
  for (const Policy* policy : kPolicies) {
    EXPECT_EQ(play(made("even"), policy).moves, 0U) << policy->word;
  }
}

TEST(BalancedCases, AreTheSameEachTime) {
  for (const char* word : {"noise", "heavy-tail"}) {
    const Outcome one = play(made(word), &kGreedyRefine);
    const Outcome other = play(made(word), &kGreedyRefine);
    EXPECT_EQ(one.steps, other.steps);
    EXPECT_EQ(one.moves, other.moves);
  }
}

TEST(RecordedJob, IsPlayedAsItWas) {
  const auto scenario = recorded(R"({"hosts": [{"processors": 1}, {"processors": 1, "speed": 0.5}],
    "ranks": [{"host": 0}, {"host": 0}], "traffic": [[0, 1, 8]], "work_s": [[1, 1], [1, 3]]})");
  ASSERT_TRUE(scenario) << scenario.error().message();
  const Outcome outcome = play(*scenario, nullptr);
  EXPECT_DOUBLE_EQ(outcome.intervals.front().step_s, 2);
  EXPECT_DOUBLE_EQ(outcome.intervals.back().step_s, 4);
}

TEST(RecordedJob, IsNotTakenIfItDoesNotFitTogether) {
  for (const char* text :
       {"", "{}", R"({"hosts": [], "ranks": [{"host": 0}], "work_s": [[1]]})",
        R"({"hosts": [{"processors": 1}], "ranks": [{"host": 0}], "work_s": [[1, 2]]})",
        R"({"hosts": [{"processors": 1}], "ranks": [{"host": 0}], "work_s": []})",
        R"({"hosts": [{"processors": 1}], "ranks": [{"host": 0}], "work_s": [["x"]]})",
        R"({"hosts": [{"processors": 1}], "ranks": [{"host": 0}], "work_s": [[1]],
            "traffic": [[0, 1, 5]]})"}) {
    const auto scenario = recorded(text);
    ASSERT_FALSE(scenario) << text;
    EXPECT_EQ(scenario.error().code, ErrorCode::kInvalid);
  }
}

}  // namespace
}  // namespace migrate::balance
