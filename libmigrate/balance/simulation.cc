#include "libmigrate/balance/simulation.h"

#include <algorithm>
#include <boost/random/mersenne_twister.hpp>
#include <boost/random/normal_distribution.hpp>
#include <optional>
#include <utility>

namespace migrate::balance {
namespace {

Job measured(const Job& job, double noise, boost::random::mt19937_64& random) {
  Job seen = job;
  seen.step_s = step_seconds(job, current_placement(job));
  if (noise > 0) {
    boost::random::normal_distribution<double> error(1, noise);
    for (Rank& rank : seen.ranks) {
      rank.work_s *= std::max(0.0, error(random));
    }
  }
  return seen;
}

}  // namespace

Outcome simulate(Scenario scenario, const SimulationOptions& options) {
  Outcome outcome;
  boost::random::mt19937_64 random(options.seed);
  std::optional<Balancer> balancer;
  if (options.policy != nullptr) {
    balancer.emplace(*options.policy, options.settings);
  }
  Job& job = scenario.job;
  for (double now = 0; now < options.length_s; now += options.interval_s) {
    scenario.at(now / options.length_s, job);
    Interval interval{.begin_s = now, .bound_s = step_bound(job)};
    double lost_s = 0;
    if (balancer) {
      const Plan plan = balancer->decide(measured(job, scenario.noise, random));
      for (const PlannedMove& move : plan.moves) {
        job.ranks[move.rank].host = move.to;
        job.ranks[move.rank].rest_s = 0;
        job.ranks[move.rank].by_home = true;
      }
      interval.moves = plan.moves.size();
      lost_s = std::min(plan.cost_s, options.interval_s);
    }
    for (Rank& rank : job.ranks) {
      rank.rest_s += options.interval_s;
    }
    interval.step_s = step_seconds(job, current_placement(job));
    outcome.steps += (options.interval_s - lost_s) / interval.step_s;
    outcome.steps_at_best += options.interval_s / interval.bound_s;
    outcome.moves += interval.moves;
    outcome.intervals.push_back(interval);
  }
  outcome.broken_promises = balancer ? balancer->broken_promises() : 0;
  return outcome;
}

}  // namespace migrate::balance
