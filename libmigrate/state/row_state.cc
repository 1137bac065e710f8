#include "libmigrate/state/row_state.h"

namespace migrate {

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
