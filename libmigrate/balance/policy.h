#pragma once

#include <array>
#include <string_view>
#include <vector>

#include "libmigrate/balance/job.h"

namespace migrate::balance {

/// A way of finding placements that may be better than the one that is. A policy decides nothing:
/// the balancer takes what is worth its cost. A new one is a file that ends with its Policy, and
/// its line in kPolicies. Const-thread-safe; a pure function of the job, so that a decision can be
/// repeated.
struct Policy {
  std::string_view word;  ///< As `--policy` has it.
  /// In no order; with less to be moved first where that is as good. Never onto a host that is not
  /// usable, or beyond a host's memory, and never a rank that is not movable.
  std::vector<Placement> (*propose)(const Job& job);
};

extern const Policy kGreedyRefine;
extern const Policy kThreshold;

inline constexpr std::array kPolicies{&kGreedyRefine, &kThreshold};

/// The policy of that word; null if there is none.
const Policy* find_policy(std::string_view word);

}  // namespace migrate::balance
