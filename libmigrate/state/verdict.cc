#include "libmigrate/state/verdict.h"

namespace migrate {

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

}  // namespace migrate
