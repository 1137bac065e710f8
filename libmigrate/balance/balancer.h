#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "libmigrate/balance/job.h"
#include "libmigrate/balance/policy.h"

namespace migrate::balance {

/// What a move takes from its job, as the last moves told.
struct MoveCosts {
  double stop_s = 0.005;     ///< The rank stands still.
  double bytes_per_s = 1e9;  ///< Its memory follows so fast.
  double slowdown = 0.1;     ///< So much of its speed it lacks meanwhile.

  /// Seconds that a rank with so much memory falls behind.
  double seconds(double memory_bytes) const {
    return stop_s + slowdown * memory_bytes / bytes_per_s;
  }
};

struct BalancerSettings {
  double min_gain = 0.05;      ///< Of a step's time: less is left alone.
  double horizon_s = 60;       ///< In which a plan must have paid for itself.
  std::size_t most_moves = 8;  ///< Of one plan. Leaving a host that is not usable is not limited.
  double rest_s = 10;          ///< Before a rank is moved again.
  double newest = 0.5;         ///< Weight of the newest measurement of a rank against those before.
  MoveCosts costs;
};

struct PlannedMove {
  std::uint32_t rank = 0;
  std::uint32_t from = 0;
  std::uint32_t to = 0;
};

/// What is to be done, and why.
struct Plan {
  std::vector<PlannedMove> moves;  ///< All at once; none contradicts another.
  double step_s = 0;               ///< Of the job as it is,
  double step_after_s = 0;         ///< and as it is expected to be.
  double bound_s = 0;              ///< No placement would be better.
  double cost_s = 0;   ///< Of the moves: the job waits for the rank that falls behind most.
  std::string reason;  ///< For people, also if nothing is to be done.
};

/// Decides for one job when ranks are to be moved, and which: by what a policy proposes, what moves
/// cost, and whether the plans of before kept their word. Not thread-safe. Knows no clock: steps of
/// simulated jobs and of real ones look the same to it.
class Balancer {
 public:
  Balancer(const Policy& policy, const BalancerSettings& settings)
      : policy_(policy), settings_(settings) {}

  /// The plan for a job that was measured just now, in whose placement the plan before has been
  /// carried out. Measurements of a rank are averaged with those before, so that noise moves
  /// nobody.
  Plan decide(const Job& measured);

  /// Plans in succession that brought less than half of what they had promised: what the job would
  /// have come to since, without them, against what it did.
  int broken_promises() const { return broken_promises_; }
  /// So many, and it proposes nothing any more.
  static constexpr int kMostBrokenPromises = 3;
  bool has_stopped() const { return broken_promises_ >= kMostBrokenPromises; }

 private:
  struct Promise {
    Placement before;
    double gain = 0;  // share of a step
  };

  Job smoothed(const Job& measured);
  void hold_against(const Job& measured);
  Plan best_of(const Job& job) const;
  Plan plan_towards(const Job& job, const Placement& placement) const;

  const Policy& policy_;
  const BalancerSettings settings_;
  std::vector<double> works_;  // of each rank, averaged
  std::optional<Promise> promise_;
  int broken_promises_ = 0;
};

}  // namespace migrate::balance
