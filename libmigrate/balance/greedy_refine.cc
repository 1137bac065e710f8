#include <algorithm>
#include <numeric>
#include <optional>
#include <set>
#include <utility>

#include "libmigrate/balance/policy.h"

// As Charm++'s GreedyRefineLB: the largest first, each where it is if its host then keeps within a
// tolerance of the best that can be, else where it would be done first (Charm++ manual, "Load
// Balancing Strategies"). A larger tolerance moves fewer.

namespace migrate::balance {
namespace {

constexpr std::array kTolerances{0.01, 0.03, 0.1, 0.3};
/// Of the hosts with least to do, as many are looked at: they differ in speed and in neighbours.
constexpr int kLookedAt = 8;

/// Who talks to whom.
class Neighbours {
 public:
  explicit Neighbours(const Job& job)
      : job_(job), of_(job.ranks.size()), prices_(prices_of_moving(job)) {
    for (const Traffic& each : job.traffic) {
      of_[each.one].push_back({each.other, each.bytes});
      of_[each.other].push_back({each.one, each.bytes});
    }
  }

  /// Seconds that a step would take longer with `rank` on `host`, for what goes to other hosts,
  /// which burdens both ends, and by way of home.
  double seconds(std::uint32_t rank, std::uint32_t host, const Placement& placement) const {
    double bytes = 0;
    for (const auto& [other, each] : of_[rank]) {
      bytes += placement[other] != host ? each : 0;
    }
    return 2 * bytes / job_.link_bytes_per_s + (host != job_.ranks[rank].host ? prices_[rank] : 0);
  }
  double price_of_moving(std::uint32_t rank) const { return prices_[rank]; }

  /// The hosts of those it talks to.
  std::set<std::uint32_t> hosts(std::uint32_t rank, const Placement& placement) const {
    std::set<std::uint32_t> found;
    for (const auto& [other, bytes] : of_[rank]) {
      found.insert(placement[other]);
    }
    return found;
  }

 private:
  const Job& job_;
  std::vector<std::vector<std::pair<std::uint32_t, double>>> of_;
  std::vector<double> prices_;
};

/// Puts ranks onto empty hosts, one after the other.
class Refinement {
 public:
  Refinement(const Job& job, const Neighbours& neighbours, double most_seconds)
      : job_(job),
        neighbours_(neighbours),
        most_seconds_(most_seconds),
        placement_(current_placement(job)),
        loads_(job.hosts.size()) {
    for (std::uint32_t host = 0; host < job.hosts.size(); ++host) {
      if (job.hosts[host].usable && job.hosts[host].processors > 0) {
        by_time_.insert({0, host});
      }
    }
  }

  Placement place(const std::vector<std::uint32_t>& in_turn) {
    for (const std::uint32_t rank : in_turn) {
      if (!job_.ranks[rank].movable) {
        put(rank, placement_[rank]);
      }
    }
    for (const std::uint32_t rank : in_turn) {
      if (job_.ranks[rank].movable) {
        put(rank, stays(rank) ? placement_[rank] : best_for(rank));
      }
    }
    return std::move(placement_);
  }

 private:
  bool fits(std::uint32_t rank, std::uint32_t host) const {
    return job_.hosts[host].usable && loads_[host].memory_bytes + job_.ranks[rank].memory_bytes <=
                                          job_.hosts[host].memory_bytes;
  }
  double done_after(std::uint32_t rank, std::uint32_t host) const {
    Load load = loads_[host];
    load.add(job_.ranks[rank]);
    return step_on(job_.hosts[host], load);
  }
  bool stays(std::uint32_t rank) const {
    return fits(rank, placement_[rank]) && done_after(rank, placement_[rank]) <= most_seconds_;
  }

  // Where it is, if nobody else has room.
  std::uint32_t best_for(std::uint32_t rank) const {
    std::uint32_t best = placement_[rank];
    std::optional<double> shortest;
    const auto look = [&](std::uint32_t host) {
      if (!fits(rank, host)) {
        return false;
      }
      const double seconds = done_after(rank, host) + neighbours_.seconds(rank, host, placement_);
      if (!shortest || seconds < *shortest) {
        shortest = seconds;
        best = host;
      }
      return true;
    };
    int looked_at = 0;
    for (auto each = by_time_.begin(); each != by_time_.end() && looked_at < kLookedAt; ++each) {
      looked_at += look(each->second) ? 1 : 0;
    }
    for (const std::uint32_t host : neighbours_.hosts(rank, placement_)) {
      look(host);
    }
    if (neighbours_.price_of_moving(rank) > 0) {
      look(placement_[rank]);
    }
    return best;
  }

  void put(std::uint32_t rank, std::uint32_t host) {
    by_time_.erase({step_on(job_.hosts[host], loads_[host]), host});
    loads_[host].add(job_.ranks[rank]);
    placement_[rank] = host;
    if (job_.hosts[host].usable && job_.hosts[host].processors > 0) {
      by_time_.insert({step_on(job_.hosts[host], loads_[host]), host});
    }
  }

  const Job& job_;
  const Neighbours& neighbours_;
  const double most_seconds_;
  Placement placement_;
  std::vector<Load> loads_;
  std::set<std::pair<double, std::uint32_t>> by_time_;
};

std::vector<Placement> refine(const Job& job) {
  std::vector<std::uint32_t> in_turn(job.ranks.size());
  std::iota(in_turn.begin(), in_turn.end(), 0U);
  std::ranges::stable_sort(in_turn, [&job](std::uint32_t one, std::uint32_t other) {
    return job.ranks[one].work_s > job.ranks[other].work_s;
  });
  const Neighbours neighbours(job);
  const double bound = step_bound(job);
  std::vector<Placement> found;
  const auto place_all = [&] {
    for (const double tolerance : kTolerances) {
      found.push_back(Refinement(job, neighbours, bound * (1 + tolerance)).place(in_turn));
    }
  };
  place_all();
  // Or whoever talks most takes its place first, and so stays rather than others.
  const auto price = [&](std::uint32_t rank) { return neighbours.price_of_moving(rank); };
  if (std::ranges::any_of(in_turn, [&](std::uint32_t rank) { return price(rank) > 0; })) {
    std::ranges::stable_sort(in_turn, std::ranges::greater(), price);
    place_all();
  }
  std::ranges::reverse(found);
  return found;
}

}  // namespace

constinit const Policy kGreedyRefine{.word = "greedy-refine", .propose = refine};

}  // namespace migrate::balance
