#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "libmigrate/balance/balancer.h"
#include "libmigrate/balance/scenario.h"

namespace migrate::balance {

struct SimulationOptions {
  const Policy* policy = nullptr;  ///< Null: ranks stay where they are.
  BalancerSettings settings;
  double length_s = 600;   ///< Of the job, in its own time.
  double interval_s = 5;   ///< Between two decisions.
  std::uint64_t seed = 1;  ///< Of errors of measurements.
};

/// The job between two decisions.
struct Interval {
  double begin_s = 0;
  double step_s = 0;
  double bound_s = 0;  ///< No placement has a shorter step.
  std::size_t moves = 0;
};

struct Outcome {
  std::vector<Interval> intervals;
  double steps = 0;          ///< That the job came to in its time.
  double steps_at_best = 0;  ///< That it would have come to if each had been as short as can be.
  std::size_t moves = 0;
  int broken_promises = 0;
};

/// What becomes of a job. The same options give the same outcome. Takes no longer than it needs.
Outcome simulate(Scenario scenario, const SimulationOptions& options);

}  // namespace migrate::balance
