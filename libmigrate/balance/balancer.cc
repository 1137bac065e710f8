#include "libmigrate/balance/balancer.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <utility>

namespace migrate::balance {
namespace {

// Of ranks on hosts that must be left.
std::size_t must_leave(const Job& job) {
  return static_cast<std::size_t>(std::ranges::count_if(job.ranks, [&job](const Rank& rank) {
    return rank.movable && !job.hosts[rank.host].usable;
  }));
}

Job without_resting(const Job& job, double rest_s) {
  Job awake = job;
  for (Rank& rank : awake.ranks) {
    if (rank.rest_s < rest_s && job.hosts[rank.host].usable) {
      rank.movable = false;
    }
  }
  return awake;
}

double share_gained(double before_s, double after_s) {
  if (std::isinf(before_s)) {
    return std::isinf(after_s) ? 0 : 1;
  }
  return before_s > 0 ? 1 - after_s / before_s : 0;
}

// Of a step: waiting for messages, above all.
double unknown_seconds(const Job& job) {
  const double modelled_s = step_seconds(job, current_placement(job));
  return std::isinf(modelled_s) ? 0 : std::max(job.step_s - modelled_s, 0.0);
}

double work_of_all(const Job& job) {
  double work_s = 0;
  for (const Rank& rank : job.ranks) {
    work_s += rank.work_s;
  }
  return work_s;
}

std::vector<bool> those_by_home(const Job& job) {
  std::vector<bool> all;
  all.reserve(job.ranks.size());
  for (const Rank& rank : job.ranks) {
    all.push_back(rank.by_home);
  }
  return all;
}

/// Takes moves towards a placement one by one, each from the host that is slowest then.
class Selection {
 public:
  Selection(const Job& job, const Placement& wanted)
      : job_(job), placement_(current_placement(job)), leaving_(job.hosts.size()) {
    for (std::uint32_t rank = 0; rank < wanted.size(); ++rank) {
      if (wanted[rank] != placement_[rank]) {
        leaving_[placement_[rank]].push_back({rank, placement_[rank], wanted[rank]});
      }
    }
    for (auto& moves : leaving_) {  // The largest at the end, where it is taken.
      std::ranges::stable_sort(moves, [&job](const PlannedMove& one, const PlannedMove& other) {
        return job.ranks[one.rank].work_s < job.ranks[other.rank].work_s;
      });
    }
    loads_ = loads_of(job, placement_);
  }

  /// At most so many; of hosts that must be left, all.
  std::vector<PlannedMove> take(std::size_t most) {
    for (std::uint32_t host = 0; host < leaving_.size(); ++host) {
      while (!job_.hosts[host].usable && !leaving_[host].empty()) {
        take_from(host);
      }
    }
    for (std::size_t taken = 0; taken < most; ++taken) {
      const auto slowest = slowest_leaving();
      if (!slowest) {
        break;
      }
      take_from(*slowest);
    }
    return std::move(taken_);
  }
  /// With what was taken.
  const Placement& placement() const { return placement_; }

 private:
  // Nothing if a host is slower that no rank is to leave: then nothing more is to be gained.
  std::optional<std::uint32_t> slowest_leaving() const {
    std::optional<std::uint32_t> slowest;
    double longest = 0;
    for (std::uint32_t host = 0; host < leaving_.size(); ++host) {
      const double seconds = step_on(job_.hosts[host], loads_[host]);
      if (seconds > longest) {
        longest = seconds;
        slowest = host;
      }
    }
    return slowest && !leaving_[*slowest].empty() ? slowest : std::nullopt;
  }

  void take_from(std::uint32_t host) {
    const PlannedMove move = leaving_[host].back();
    leaving_[host].pop_back();
    placement_[move.rank] = move.to;
    loads_[move.to].add(job_.ranks[move.rank]);
    loads_[host].work_s -= job_.ranks[move.rank].work_s;
    loads_[host].memory_bytes -= job_.ranks[move.rank].memory_bytes;
    taken_.push_back(move);
  }

  const Job& job_;
  Placement placement_;
  std::vector<std::vector<PlannedMove>> leaving_;  // of each host
  std::vector<Load> loads_;
  std::vector<PlannedMove> taken_;
};

// No host has more memory to hold than it has, even for the moment in which all moves are under
// way.
bool fits(const Job& job, const std::vector<PlannedMove>& moves) {
  std::vector<Load> loads = loads_of(job, current_placement(job));
  for (const PlannedMove& move : moves) {
    loads[move.to].memory_bytes += job.ranks[move.rank].memory_bytes;
  }
  for (const PlannedMove& move : moves) {
    if (loads[move.to].memory_bytes > job.hosts[move.to].memory_bytes) {
      return false;
    }
  }
  return true;
}

}  // namespace

Job Balancer::smoothed(const Job& measured) {
  if (works_.size() != measured.ranks.size()) {
    works_.clear();
    for (const Rank& rank : measured.ranks) {
      works_.push_back(rank.work_s);
    }
  }
  Job job = measured;
  for (std::size_t i = 0; i < works_.size(); ++i) {
    works_[i] += settings_.newest * (measured.ranks[i].work_s - works_[i]);
    job.ranks[i].work_s = works_[i];
  }
  // What was not known of the step that was measured is not known of that one.
  job.step_s = step_seconds(job, current_placement(job)) + unknown_seconds(measured);
  return job;
}

namespace {

// What the model did not know of a step has grown as the works have.
double unknown_now(double unknown_s, double work_s, const Job& measured) {
  return work_s > 0 ? unknown_s * work_of_all(measured) / work_s : 0;
}

}  // namespace

// With the works of now: a job that became larger since, or whose load drifts, has broken no
// promise. Without moves, ranks that were moved by the plan would not send by way of home.
double Balancer::share_come(const Promise& promise, const Job& measured) const {
  const double unknown_s = unknown_now(promise.unknown_s, promise.work_s, measured);
  const double now_s = measured.step_s > 0
                           ? measured.step_s
                           : step_seconds(measured, current_placement(measured)) + unknown_s;
  Job without = measured;
  for (std::size_t rank = 0; rank < without.ranks.size(); ++rank) {
    without.ranks[rank].host = promise.before[rank];
    without.ranks[rank].by_home = promise.by_home[rank];
  }
  return share_gained(step_seconds(without, promise.before) + unknown_s, now_s);
}

// Whatever a step takes longer than works and what was unknown before explain, messages by home
// are taken to be the reason for. One plan changes what is thought of them fourfold at most.
void Balancer::learn_by_home(const Promise& promise, const Job& measured) {
  constexpr double kMost = 4;
  constexpr double kNewest = 0.5;
  const Placement now = current_placement(measured);
  const double expected_s = by_home_seconds(measured, now);
  if (expected_s <= 0 || measured.step_s <= 0) {
    return;
  }
  const double others_s = step_seconds(measured, now) - expected_s +
                          unknown_now(promise.unknown_s, promise.work_s, measured);
  const double ratio = std::clamp((measured.step_s - others_s) / expected_s, 1 / kMost, kMost);
  const double factor = 1 + kNewest * (ratio - 1);
  settings_.by_home.message_s *= factor;
  settings_.by_home.byte_s *= factor;
}

// Nothing as long as it is too early to say.
std::optional<Word> Balancer::judged(Promise& promise, const Job& measured) {
  if (promise.before.size() != measured.ranks.size()) {
    return std::nullopt;
  }
  Word& word = promise.so_far;
  ++promise.measured;
  word.promised = promise.gain;
  word.came += (share_come(promise, measured) - word.came) / promise.measured;
  if (promise.measured < settings_.intervals_to_judge && word.came >= -settings_.clearly_worse) {
    promise_ = promise;
    return std::nullopt;
  }
  word.kept = word.came >= promise.gain / 2;
  broken_promises_ = word.kept ? 0 : broken_promises_ + 1;
  lacking_ = word.kept ? 0 : word.promised - word.came;
  learn_by_home(promise, measured);
  return word;
}

Plan Balancer::waiting(const Job& job) const {
  Plan plan;
  plan.bound_s = step_bound(job);
  plan.step_s = job.step_s;
  plan.step_after_s = job.step_s;
  plan.by_home_s = by_home_seconds(job, current_placement(job));
  plan.reason = fmt::format(
      "a step takes {:.4g} s, {:.0f} % less than without the last plan, of which the next "
      "measurement is to tell, too",
      job.step_s, promise_->so_far.came * 100);
  return plan;
}

Plan Balancer::decide(const Job& latest) {
  Job measured = latest;
  measured.by_home = settings_.by_home;
  std::optional<Promise> promise = std::exchange(promise_, std::nullopt);
  const std::optional<Word> word = promise ? judged(*promise, measured) : std::nullopt;
  measured.by_home = settings_.by_home;  // Which may be known better now.
  const Job job = smoothed(measured);
  const std::size_t leaving = must_leave(job);
  if (promise_ && leaving == 0) {
    return waiting(job);
  }
  promise_.reset();
  if (word && word->came < -settings_.min_gain && leaving == 0) {
    return taken_back(job, promise->before, *word);
  }
  Plan plan = best_of(job);
  plan.word = word;
  plan.bound_s = step_bound(job);
  plan.step_s = job.step_s;
  const double gain = share_gained(plan.step_s, plan.step_after_s);
  worthwhile_ = plan.moves.empty() ? 0 : worthwhile_ + 1;
  if (plan.moves.empty()) {
    plan.step_after_s = plan.step_s;
    plan.reason = fmt::format(
        "a step takes {:.4g} s, at best {:.4g} s: no moves would pay for "
        "themselves within {:.4g} s",
        plan.step_s, plan.bound_s, settings_.horizon_s);
  } else if (leaving == 0 && has_stopped()) {
    plan.moves.clear();
    plan.step_after_s = plan.step_s;
    plan.reason = fmt::format(
        "{} plans in succession did not keep their word: policy {} does "
        "nothing more for this job",
        broken_promises_, policy_.word);
  } else if (leaving == 0 && worthwhile_ < settings_.confirmations) {
    plan.reason = fmt::format(
        "a step takes {:.4g} s, and {} moves would make it {:.4g} s: they wait for the next "
        "measurement to say so, too",
        plan.step_s, plan.moves.size(), plan.step_after_s);
    plan.moves.clear();
    plan.step_after_s = plan.step_s;
  } else {
    worthwhile_ = 0;
    plan.reason = fmt::format(
        "{} moves: a step takes {:.4g} s, afterwards {:.4g} s ({:.0f} % "
        "less; at best {:.4g} s; {:.4g} s of it messages by home), for {:.4g} s once",
        plan.moves.size(), plan.step_s, plan.step_after_s, gain * 100, plan.bound_s, plan.by_home_s,
        plan.cost_s);
    if (leaving == 0) {
      promise_ = Promise{.before = current_placement(job),
                         .by_home = those_by_home(job),
                         .gain = gain,
                         .unknown_s = unknown_seconds(measured),
                         .work_s = work_of_all(measured)};
    }
  }
  return plan;
}

// Whatever it costs: what made it slower is nothing that the model knows.
Plan Balancer::taken_back(const Job& job, const Placement& before, const Word& word) const {
  Plan plan;
  plan.word = word;
  const Placement now = current_placement(job);
  for (std::uint32_t rank = 0; rank < now.size(); ++rank) {
    if (now[rank] != before[rank] && job.ranks[rank].movable && job.hosts[before[rank]].usable) {
      plan.moves.push_back({rank, now[rank], before[rank]});
      plan.cost_s = std::max(plan.cost_s, settings_.costs.seconds(job.ranks[rank].memory_bytes));
    }
  }
  plan.bound_s = step_bound(job);
  plan.step_s = job.step_s;
  plan.by_home_s = by_home_seconds(job, now);
  plan.step_after_s = plan.step_s / (1 - word.came);
  plan.reason = fmt::format(
      "a step takes {:.4g} s, {:.0f} % more than it would without the last plan: {} moves take it "
      "back",
      plan.step_s, -word.came * 100, plan.moves.size());
  return plan;
}

// What is gained within the horizon, less what the moves cost.
Plan Balancer::best_of(const Job& job) const {
  const double unknown_s = unknown_seconds(job);
  const double now_s = job.step_s;
  const double least = settings_.min_gain + lacking_ / 2;
  const bool must = must_leave(job) > 0;
  Plan best;
  double most = 0;
  const Job awake = without_resting(job, settings_.rest_s);
  for (const Placement& placement : policy_.propose(awake)) {
    Plan plan = plan_towards(job, placement);
    plan.step_after_s += unknown_s;
    const double gain = share_gained(now_s, plan.step_after_s);
    const double utility = gain * settings_.horizon_s - plan.cost_s;
    const bool worthwhile = gain >= least && utility > most;
    if (!plan.moves.empty() && fits(job, plan.moves) &&
        (worthwhile || (must && (best.moves.empty() || utility > most)))) {
      most = utility;
      best = std::move(plan);
    }
  }
  return best;
}

Plan Balancer::plan_towards(const Job& job, const Placement& placement) const {
  Plan plan;
  Selection selection(job, placement);
  plan.moves = selection.take(settings_.most_moves);
  plan.step_after_s = step_seconds(job, selection.placement());
  plan.by_home_s = by_home_seconds(job, selection.placement());
  for (const PlannedMove& move : plan.moves) {
    plan.cost_s = std::max(plan.cost_s, settings_.costs.seconds(job.ranks[move.rank].memory_bytes));
  }
  return plan;
}

}  // namespace migrate::balance
