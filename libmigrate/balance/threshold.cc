#include <algorithm>
#include <cmath>
#include <optional>

#include "libmigrate/balance/policy.h"

// The simplest: as long as one host takes much longer than they do on average, one of its ranks
// goes to the host that is done first.

namespace migrate::balance {
namespace {

constexpr double kThresholdRatio = 1.1;

struct Extremes {
  std::uint32_t slowest = 0;
  std::uint32_t quickest = 0;
  double longest_s = 0;
  double shortest_s = 0;
};

// Nothing if there is no host that takes ranks. A host that must be left counts as the slowest.
std::optional<Extremes> extremes_of(const Job& job, const std::vector<Load>& loads) {
  std::optional<std::uint32_t> slowest;
  std::optional<std::uint32_t> quickest;
  const auto seconds = [&](std::uint32_t host) {
    const bool must_be_left = !job.hosts[host].usable && loads[host].work_s > 0;
    return must_be_left ? std::numeric_limits<double>::infinity()
                        : step_on(job.hosts[host], loads[host]);
  };
  for (std::uint32_t host = 0; host < loads.size(); ++host) {
    if (!slowest || seconds(host) > seconds(*slowest)) {
      slowest = host;
    }
    if (job.hosts[host].usable && (!quickest || seconds(host) < seconds(*quickest))) {
      quickest = host;
    }
  }
  if (!quickest) {
    return std::nullopt;
  }
  return Extremes{*slowest, *quickest, seconds(*slowest), seconds(*quickest)};
}

// What is left on a host when one of its ranks goes.
class Without {
 public:
  Without(const Job& job, const Placement& placement, std::uint32_t host) : job_(job) {
    for (std::uint32_t rank = 0; rank < placement.size(); ++rank) {
      if (placement[rank] == host) {
        all_.add(job.ranks[rank]);
        ranks_.push_back(rank);
      }
    }
    std::ranges::sort(ranks_, [&job](std::uint32_t one, std::uint32_t other) {
      return job.ranks[one].work_s > job.ranks[other].work_s;
    });
  }

  /// Those of the host, the largest first.
  const std::vector<std::uint32_t>& ranks() const { return ranks_; }
  Load rest(std::uint32_t rank) const {
    Load rest = all_;
    rest.work_s -= job_.ranks[rank].work_s;
    rest.memory_bytes -= job_.ranks[rank].memory_bytes;
    if (rank == ranks_.front()) {
      rest.largest_s = ranks_.size() > 1 ? job_.ranks[ranks_[1]].work_s : 0;
    }
    return rest;
  }

 private:
  const Job& job_;
  Load all_;
  std::vector<std::uint32_t> ranks_;
};

// The rank of the slowest host after whose move the later of the two hosts is done first.
std::optional<std::uint32_t> best_rank(const Job& job, const Without& slowest,
                                       const std::vector<Load>& loads, const Extremes& extremes,
                                       const std::vector<double>& prices) {
  std::optional<std::uint32_t> best;
  double shortest = extremes.longest_s;
  const Host& to = job.hosts[extremes.quickest];
  for (const std::uint32_t rank : slowest.ranks()) {
    Load there = loads[extremes.quickest];
    there.add(job.ranks[rank]);
    if (!job.ranks[rank].movable || there.memory_bytes > to.memory_bytes) {
      continue;
    }
    const double here_s = std::isinf(extremes.longest_s)
                              ? 0
                              : step_on(job.hosts[extremes.slowest], slowest.rest(rank));
    const double later = std::max(step_on(to, there), here_s) + prices[rank];
    if (later < shortest) {
      shortest = later;
      best = rank;
    }
  }
  return best;
}

std::vector<Placement> level(const Job& job) {
  constexpr int kMostMoves = 256;
  Placement placement = current_placement(job);
  std::vector<Load> loads = loads_of(job, placement);
  const std::vector<double> prices = prices_of_moving(job);
  const double enough = step_bound(job) * kThresholdRatio;
  for (int moves = 0; moves < kMostMoves; ++moves) {
    const auto extremes = extremes_of(job, loads);
    if (!extremes || extremes->longest_s <= enough) {
      break;
    }
    const Without slowest(job, placement, extremes->slowest);
    const auto rank = best_rank(job, slowest, loads, *extremes, prices);
    if (!rank) {
      break;
    }
    placement[*rank] = extremes->quickest;
    loads[extremes->slowest] = slowest.rest(*rank);
    loads[extremes->quickest].add(job.ranks[*rank]);
  }
  return {placement};
}

}  // namespace

constinit const Policy kThreshold{.word = "threshold", .propose = level};

}  // namespace migrate::balance
