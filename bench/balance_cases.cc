// Plays jobs against policies: what each would have moved, and what that would have come to. Prints
// one JSON object. bench/balance makes pictures of it.

#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/file.h"
#include "libmigrate/balance/scenario.h"
#include "libmigrate/balance/simulation.h"

namespace migrate {
namespace {

using nlohmann::json;

constexpr const char* kStay = "none";

struct Options {
  balance::Size size;
  balance::SimulationOptions simulation;
  std::vector<std::string> cases;
  std::vector<std::string> policies;
  std::string recorded;
};

std::vector<std::string> policy_words() {
  std::vector<std::string> words{kStay};
  for (const balance::Policy* policy : balance::kPolicies) {
    words.emplace_back(policy->word);
  }
  return words;
}

std::vector<std::string> case_words() {
  std::vector<std::string> words;
  for (const balance::MadeUp& each : balance::made_up()) {
    words.emplace_back(each.word);
  }
  return words;
}

json told(const balance::Outcome& outcome, double seconds) {
  json intervals = json::array();
  for (const balance::Interval& each : outcome.intervals) {
    intervals.push_back({each.begin_s, each.step_s, each.bound_s, each.moves});
  }
  const balance::Interval& last = outcome.intervals.back();
  const auto moving =
      std::ranges::find_if(outcome.intervals.rbegin(), outcome.intervals.rend(),
                           [](const balance::Interval& each) { return each.moves > 0; });
  return {{"steps", outcome.steps},
          {"steps_at_best", outcome.steps_at_best},
          {"moves", outcome.moves},
          {"last_move_s", moving == outcome.intervals.rend() ? json() : json(moving->begin_s)},
          {"broken_promises", outcome.broken_promises},
          {"last_step_to_bound", last.step_s / last.bound_s},
          {"decided_in_s", seconds},
          {"intervals", std::move(intervals)}};
}

json played(const balance::Scenario& scenario, const Options& options) {
  json outcomes = json::object();
  for (const std::string& word : options.policies) {
    balance::SimulationOptions simulation = options.simulation;
    simulation.policy = balance::find_policy(word);
    const auto begin = std::chrono::steady_clock::now();
    const balance::Outcome outcome = balance::simulate(scenario, simulation);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    outcomes[word] = told(outcome, took.count());
  }
  return outcomes;
}

Result<json> play_all(const Options& options) {
  json cases = json::object();
  if (!options.recorded.empty()) {
    const balance::Scenario scenario =
        MIGRATE_TRY(balance::recorded(MIGRATE_TRY(read_file(options.recorded))));
    cases[options.recorded] = {{"policies", played(scenario, options)}};
    return cases;
  }
  for (const balance::MadeUp& each : balance::made_up()) {
    if (std::ranges::find(options.cases, each.word) != options.cases.end()) {
      cases[std::string(each.word)] = {
          {"what", each.what},
          {"policies", played(each.make(options.size, options.simulation.seed), options)}};
    }
  }
  return cases;
}

int run(int argc, char** argv) {
  Options options;
  options.cases = case_words();
  options.policies = policy_words();
  balance::BalancerSettings& settings = options.simulation.settings;
  CLI::App app("Plays jobs against balancing policies, without moving anything");
  app.add_option("--ranks", options.size.ranks, "Of made-up jobs")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  app.add_option("--hosts", options.size.hosts, "Of made-up jobs")
      ->check(CLI::Range(1, 100'000))
      ->capture_default_str();
  app.add_option("--seed", options.simulation.seed, "Of made-up jobs and errors of measurements")
      ->capture_default_str();
  app.add_option("--case", options.cases, "Made-up jobs")->check(CLI::IsMember(case_words()));
  app.add_option("--policy", options.policies, "Policies; none: ranks stay where they are")
      ->check(CLI::IsMember(policy_words()));
  app.add_option("--job", options.recorded, "A recorded job instead")->check(CLI::ExistingFile);
  app.add_option("--seconds", options.simulation.length_s, "Length of a job")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--interval", options.simulation.interval_s, "Seconds between two decisions")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--min-gain", settings.min_gain, "Share of a step that a plan must gain")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  app.add_option("--moves", settings.most_moves, "Most moves of one plan")->capture_default_str();
  // As `migratectl balance` has them.
  settings.confirmations = 2;
  settings.intervals_to_judge = 2;
  CLI11_PARSE(app, argc, argv);
  const auto cases = play_all(options);
  if (!cases) {
    fmt::print(stderr, "balance_cases: {}\n", cases.error().message());
    return 2;
  }
  fmt::print("{}\n", json({{"ranks", options.size.ranks},
                           {"hosts", options.size.hosts},
                           {"seed", options.simulation.seed},
                           {"cases", *cases}})
                         .dump(1));
  return 0;
}

}  // namespace
}  // namespace migrate

int main(int argc, char** argv) {
  return migrate::run(argc, argv);
}
