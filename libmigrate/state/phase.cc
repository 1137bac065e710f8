#include "libmigrate/state/phase.h"

#include <signal.h>
#include <sys/wait.h>

#include <string_view>

namespace migrate {
namespace {

/// What is so of a guest's session in a phase; the predicates of phase.h read it.
struct GuestFacts {
  std::string_view name;
  /// Where the phase stands on the way on which nothing goes back; of two in one place each may
  /// follow the other. The phase's number is no such thing: files have it, and it never changes.
  int place = 0;
  bool hurried = false;
  bool starting = false;
  bool ran = false;
  bool ended = false;
  bool independent = false;
  bool left = false;
  bool closed = false;
};

/// The table of a guest's phases. Like every function of this file it has no default, so that the
/// compiler asks for each phase. A number that is no phase has no name.
constexpr GuestFacts facts_of(GuestPhase phase) {
  switch (phase) {
    case GuestPhase::kPrepared:
      return {.name = "Prepared", .place = 1};
    case GuestPhase::kAwaitsRun:
      return {.name = "AwaitsRun", .place = 2, .hurried = true};
    case GuestPhase::kTold:
      return {.name = "Told", .place = 3, .hurried = true};
    case GuestPhase::kMarked:
      return {.name = "Marked", .place = 4, .hurried = true, .starting = true};
    case GuestPhase::kKept:
      return {.name = "Kept", .place = 5, .hurried = true, .starting = true};
    case GuestPhase::kRan:
      return {.name = "Ran", .place = 6, .hurried = true, .ran = true};
    case GuestPhase::kServing:
      return {.name = "Serving", .place = 7, .ran = true};
    case GuestPhase::kIndependent:
      return {.name = "Independent", .place = 8, .ran = true, .independent = true};
    case GuestPhase::kInDoubt:
      return {.name = "InDoubt", .place = 8, .ran = true, .independent = true};
    case GuestPhase::kLeaving:
      return {.name = "Leaving", .place = 9, .ran = true, .independent = true, .left = true};
    case GuestPhase::kWentOn:
      return {.name = "WentOn",
              .place = 10,
              .ran = true,
              .independent = true,
              .left = true,
              .closed = true};
    case GuestPhase::kNeverRan:
      return {.name = "NeverRan", .place = 11, .ended = true};
    case GuestPhase::kEnded:
      return {.name = "Ended", .place = 12, .ran = true, .ended = true};
    case GuestPhase::kEndedIndependent:
      return {
          .name = "EndedIndependent", .place = 13, .ran = true, .ended = true, .independent = true};
    case GuestPhase::kOver:
      return {.name = "Over",
              .place = 14,
              .ran = true,
              .ended = true,
              .independent = true,
              .closed = true};
  }
  return {};
}

}  // namespace

std::string_view to_string(GuestPhase phase) {
  return facts_of(phase).name;
}

std::string_view to_string(HomePhase phase) {
  switch (phase) {
    case HomePhase::kOffered:
      return "Offered";
    case HomePhase::kInDoubt:
      return "InDoubt";
    case HomePhase::kServing:
      return "Serving";
    case HomePhase::kIndependent:
      return "Independent";
    case HomePhase::kStayed:
      return "Stayed";
    case HomePhase::kEnding:
      return "Ending";
    case HomePhase::kChildrenLeft:
      return "ChildrenLeft";
    case HomePhase::kEnded:
      return "Ended";
  }
  return {};
}

bool is_phase(std::uint32_t number, bool of_home) {
  return of_home ? !to_string(HomePhase{number}).empty() : !to_string(GuestPhase{number}).empty();
}

GuestPhase next_phase(GuestPhase now, GuestPhase wanted) {
  switch (now) {
    case GuestPhase::kWentOn:
    case GuestPhase::kOver:
      return now;
    case GuestPhase::kLeaving:  // What ends here is only what is left of it.
      return wanted == GuestPhase::kWentOn ? wanted : now;
    case GuestPhase::kNeverRan:
      // Its worker had let it go after all, and somebody else killed it before that was noted.
      return wanted == GuestPhase::kRan ? GuestPhase::kEnded : now;
    case GuestPhase::kEnded:
      if (is_independent(wanted)) {
        return has_left(wanted) || is_closed(wanted) ? wanted : GuestPhase::kEndedIndependent;
      }
      return now;
    case GuestPhase::kEndedIndependent:
      return has_left(wanted) || is_closed(wanted) ? wanted : now;
    case GuestPhase::kIndependent:
    case GuestPhase::kInDoubt:
      if (wanted == GuestPhase::kEnded) {
        return GuestPhase::kEndedIndependent;
      }
      [[fallthrough]];
    case GuestPhase::kPrepared:
    case GuestPhase::kAwaitsRun:
    case GuestPhase::kTold:
    case GuestPhase::kMarked:
    case GuestPhase::kKept:
    case GuestPhase::kRan:
    case GuestPhase::kServing: {
      const bool is_back = facts_of(wanted).place < facts_of(now).place;
      const bool is_undone = has_run(now) && wanted == GuestPhase::kNeverRan;
      return is_back || is_undone ? now : wanted;
    }
  }
  return now;
}

HomePhase next_phase(HomePhase now, HomePhase wanted) {
  switch (now) {
    case HomePhase::kStayed:
    case HomePhase::kEnded:
      return now;
    case HomePhase::kEnding:
      return has_ended(wanted) ? wanted : now;
    case HomePhase::kChildrenLeft:
      return wanted == HomePhase::kEnded ? wanted : now;
    case HomePhase::kIndependent:
      return wanted == HomePhase::kOffered || wanted == HomePhase::kServing ? now : wanted;
    case HomePhase::kServing:
      return wanted == HomePhase::kOffered ? now : wanted;
    case HomePhase::kOffered:
    case HomePhase::kInDoubt:
      return wanted;
  }
  return now;
}

GuestPhase end_phase(GuestPhase now, int wait_status) {
  const bool killed = WIFSIGNALED(wait_status) && WTERMSIG(wait_status) == SIGKILL;
  const bool was_let_go = has_run(now) || has_ended(now) || (is_starting(now) && !killed);
  return was_let_go ? GuestPhase::kEnded : GuestPhase::kNeverRan;
}

bool is_hurried(GuestPhase phase) {
  return facts_of(phase).hurried;
}

bool is_starting(GuestPhase phase) {
  return facts_of(phase).starting;
}

bool has_run(GuestPhase phase) {
  return facts_of(phase).ran;
}

bool has_ended(GuestPhase phase) {
  return facts_of(phase).ended;
}

bool has_ended(HomePhase phase) {
  switch (phase) {
    case HomePhase::kOffered:
    case HomePhase::kInDoubt:
    case HomePhase::kServing:
    case HomePhase::kIndependent:
    case HomePhase::kStayed:
      return false;
    case HomePhase::kEnding:
    case HomePhase::kChildrenLeft:
    case HomePhase::kEnded:
      return true;
  }
  return false;
}

bool is_independent(GuestPhase phase) {
  return facts_of(phase).independent;
}

bool has_left(GuestPhase phase) {
  return facts_of(phase).left;
}

bool is_closed(GuestPhase phase) {
  return facts_of(phase).closed;
}

SessionVerdict verdict(GuestPhase phase, bool is_worker_there, bool is_cell_there) {
  if (is_worker_there) {
    return SessionVerdict::kWait;
  }
  switch (phase) {
    case GuestPhase::kPrepared:
    case GuestPhase::kAwaitsRun:
    case GuestPhase::kTold:
    case GuestPhase::kNeverRan:
      return SessionVerdict::kNeverRan;
    case GuestPhase::kMarked:
    case GuestPhase::kKept:
    case GuestPhase::kRan:
    case GuestPhase::kServing:
    case GuestPhase::kIndependent:
    case GuestPhase::kInDoubt:
      return is_cell_there ? SessionVerdict::kWait : SessionVerdict::kKilled;
    case GuestPhase::kLeaving:
      return is_cell_there ? SessionVerdict::kWait : SessionVerdict::kRuns;
    case GuestPhase::kWentOn:
      return SessionVerdict::kRuns;
    case GuestPhase::kEnded:
    case GuestPhase::kEndedIndependent:
      return is_cell_there ? SessionVerdict::kWait : SessionVerdict::kEnded;
    case GuestPhase::kOver:
      return SessionVerdict::kEnded;
  }
  return SessionVerdict::kWait;
}

SessionVerdict verdict(HomePhase phase, bool is_worker_there, bool is_process_there) {
  if (is_worker_there) {
    return SessionVerdict::kWait;
  }
  switch (phase) {
    case HomePhase::kOffered:
    case HomePhase::kInDoubt:
    case HomePhase::kServing:
    case HomePhase::kIndependent:
      return is_process_there ? SessionVerdict::kWait : SessionVerdict::kKilled;
    case HomePhase::kStayed:
      return SessionVerdict::kNeverRan;
    case HomePhase::kEnding:
    case HomePhase::kChildrenLeft:
    case HomePhase::kEnded:
      return is_process_there ? SessionVerdict::kWait : SessionVerdict::kEnded;
  }
  return SessionVerdict::kWait;
}

std::optional<ProcessState> row_state(GuestPhase phase, bool children_left) {
  switch (phase) {
    case GuestPhase::kPrepared:
    case GuestPhase::kAwaitsRun:
    case GuestPhase::kTold:
    case GuestPhase::kMarked:
    case GuestPhase::kKept:
    case GuestPhase::kRan:
    case GuestPhase::kInDoubt:  // It stands still.
      return ProcessState::kMoving;
    case GuestPhase::kServing:
    case GuestPhase::kIndependent:
      return ProcessState::kRunningHere;
    case GuestPhase::kLeaving:
      return ProcessState::kAway;
    case GuestPhase::kEnded:
    case GuestPhase::kEndedIndependent:
      return children_left ? ProcessState::kChildrenLeft : ProcessState::kExited;
    case GuestPhase::kWentOn:
    case GuestPhase::kNeverRan:
    case GuestPhase::kOver:
      return std::nullopt;
  }
  return std::nullopt;
}

std::optional<ProcessState> row_state(HomePhase phase) {
  switch (phase) {
    case HomePhase::kOffered:
    case HomePhase::kInDoubt:
      return ProcessState::kMoving;
    case HomePhase::kServing:
      return ProcessState::kAway;
    case HomePhase::kIndependent:
      return ProcessState::kDone;
    case HomePhase::kStayed:
      return ProcessState::kFailed;
    case HomePhase::kEnding:  // Not before the deputy has ended.
      return std::nullopt;
    case HomePhase::kChildrenLeft:
      return ProcessState::kChildrenLeft;
    case HomePhase::kEnded:
      return ProcessState::kExited;
  }
  return std::nullopt;
}

}  // namespace migrate
