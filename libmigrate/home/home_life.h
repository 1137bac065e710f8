#pragma once

#include <functional>
#include <memory>
#include <utility>

#include "libmigrate/home/departed.h"
#include "libmigrate/home/deputy.h"
#include "libmigrate/home/real_files.h"
#include "libmigrate/home/remains.h"
#include "libmigrate/host/worker_loop.h"
#include "libmigrate/move/doubt.h"

namespace migrate {

/// Leads a process through the phases of its home, one after the other: from when somebody asks for
/// its move, or from where a worker of it died, until nothing is left to do for it here. Each phase
/// is an object that has only what it needs. Owned by one thread.
class HomeLife {
 public:
  /// Runs a phase until it is over: run_phase() with the worker's mailbox.
  using RunPhase = std::function<void(WorkerPhase&)>;

  HomeLife(const HomeSurroundings& around, HomeRecord& record, Asking& asking, RealFiles& files,
           RunPhase run)
      : around_(around), record_(record), asking_(asking), files_(files), run_(std::move(run)) {}

  /// Moves it away. Returns when that was refused or has failed, or when the process has ended.
  void move_away(HomeLeaving& leaving);
  /// Goes on where a dead worker ended. Errors: it cannot be taken over now; the record stays.
  Result<void> take_over(HomeRemains& remains);

 private:
  DoubtEnd settle_doubt(Departed& departed, std::unique_ptr<Channel>& caller);
  void end_not_moved(HomeLeaving& leaving, MoveOutcome outcome);
  void end_stayed();
  void end_killed(HomeRemains& remains);
  Result<void> take_over_deputy(HomeRemains& remains);
  Result<void> take_over_killed(HomeRemains& remains);
  Result<void> take_over_keeper(HomeRemains& remains);
  void serve_until_end(Deputy& deputy);
  void serve_what_is_left(Deputy& deputy);

  const HomeSurroundings& around_;
  HomeRecord& record_;
  Asking& asking_;
  RealFiles& files_;
  const RunPhase run_;
};

}  // namespace migrate
