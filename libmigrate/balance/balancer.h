#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "libmigrate/balance/job.h"
#include "libmigrate/balance/move_costs.h"
#include "libmigrate/balance/policy.h"

namespace migrate::balance {

struct BalancerSettings {
  double min_gain = 0.05;      ///< Of a step's time: less is left alone.
  double horizon_s = 60;       ///< In which a plan must have paid for itself.
  std::size_t most_moves = 8;  ///< Of one plan. Leaving a host that is not usable is not limited.
  double rest_s = 10;          ///< Before a rank is moved again.
  double newest = 0.5;         ///< Weight of the newest measurement of a rank against those before.
  /// In so many measurements in succession there must be something to gain before ranks are moved.
  int confirmations = 1;
  /// So many measurements after a plan are taken together before it is judged. Meanwhile no other
  /// is made, and it is taken back only if it has made a step longer by `clearly_worse` of it.
  int intervals_to_judge = 1;
  double clearly_worse = 0.3;
  MoveCosts costs;
  MessageCosts by_home;  ///< Until plans have told what messages by home really cost.
};

struct PlannedMove {
  std::uint32_t rank = 0;
  std::uint32_t from = 0;
  std::uint32_t to = 0;
};

/// What a plan had promised, and what came of it: shares of a step's time.
struct Word {
  double promised = 0;
  double came = 0;
  bool kept = false;
};

/// What is to be done, and why.
struct Plan {
  std::vector<PlannedMove> moves;  ///< All at once; none contradicts another.
  double step_s = 0;               ///< Of the job as it is,
  double step_after_s = 0;         ///< and as it is expected to be; both with what no model knows.
  double bound_s = 0;              ///< No placement would be better.
  double by_home_s = 0;            ///< Of step_after_s, what messages by way of home take longer.
  double cost_s = 0;         ///< Of the moves: the job waits for the rank that falls behind most.
  std::string reason;        ///< For people, also if nothing is to be done.
  std::optional<Word> word;  ///< Of the plan before, if it had moves.
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
  Plan decide(const Job& latest);

  /// The last plan was not carried out, or not all of it: it is not held to its word.
  void withdraw() { promise_.reset(); }
  /// What moves turned out to cost.
  void set_costs(const MoveCosts& costs) { settings_.costs = costs; }
  /// What messages by home cost, as the last plans told.
  const MessageCosts& by_home() const { return settings_.by_home; }

  /// Plans in succession that brought less than half of what they had promised: what the job would
  /// have come to since, without them, against what it did. One that made the job slower is taken
  /// back, and what is planned next must promise more by half of what the last one lacked, until
  /// one is kept.
  int broken_promises() const { return broken_promises_; }
  /// So many, and it proposes nothing any more.
  static constexpr int kMostBrokenPromises = 3;
  bool has_stopped() const { return broken_promises_ >= kMostBrokenPromises; }

 private:
  struct Promise {
    Placement before;
    std::vector<bool> by_home;  // of each rank, before it
    double gain = 0;            // share of a step
    double unknown_s = 0;       // of the step then, and
    double work_s = 0;          // the work of all ranks in it
    Word so_far{};              // the mean of what was measured since
    int measured = 0;           // so often
  };

  Job smoothed(const Job& measured);
  std::optional<Word> judged(Promise& promise, const Job& measured);
  double share_come(const Promise& promise, const Job& measured) const;
  void learn_by_home(const Promise& promise, const Job& measured);
  Plan waiting(const Job& job) const;
  Plan best_of(const Job& job) const;
  Plan taken_back(const Job& job, const Placement& before, const Word& word) const;
  Plan plan_towards(const Job& job, const Placement& placement) const;

  const Policy& policy_;
  BalancerSettings settings_;
  std::vector<double> works_;  // of each rank, averaged
  std::optional<Promise> promise_;
  int broken_promises_ = 0;
  double lacking_ = 0;  // of the last promise
  int worthwhile_ = 0;  // measurements in succession
};

}  // namespace migrate::balance
