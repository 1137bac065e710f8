#include "libmigrate/state/phase.h"

#include <signal.h>
#include <sys/wait.h>

#include <array>
#include <utility>

namespace migrate {
namespace {

constexpr std::array<std::pair<GuestPhase, std::string_view>, 15> kGuestNames{{
    {GuestPhase::kPrepared, "Prepared"},
    {GuestPhase::kAwaitsRun, "AwaitsRun"},
    {GuestPhase::kTold, "Told"},
    {GuestPhase::kMarked, "Marked"},
    {GuestPhase::kKept, "Kept"},
    {GuestPhase::kRan, "Ran"},
    {GuestPhase::kServing, "Serving"},
    {GuestPhase::kIndependent, "Independent"},
    {GuestPhase::kInDoubt, "InDoubt"},
    {GuestPhase::kLeaving, "Leaving"},
    {GuestPhase::kWentOn, "WentOn"},
    {GuestPhase::kNeverRan, "NeverRan"},
    {GuestPhase::kEnded, "Ended"},
    {GuestPhase::kEndedIndependent, "EndedIndependent"},
    {GuestPhase::kOver, "Over"},
}};

constexpr std::array<std::pair<HomePhase, std::string_view>, 8> kHomeNames{{
    {HomePhase::kOffered, "Offered"},
    {HomePhase::kInDoubt, "InDoubt"},
    {HomePhase::kServing, "Serving"},
    {HomePhase::kIndependent, "Independent"},
    {HomePhase::kStayed, "Stayed"},
    {HomePhase::kEnding, "Ending"},
    {HomePhase::kChildrenLeft, "ChildrenLeft"},
    {HomePhase::kEnded, "Ended"},
}};

template <class Names, class Phase>
std::string_view name_of(const Names& names, Phase phase) {
  for (const auto& [each, name] : names) {
    if (each == phase) {
      return name;
    }
  }
  return {};
}

template <class Phase, class Names>
std::optional<Phase> phase_of(const Names& names, std::string_view wanted) {
  for (const auto& [phase, name] : names) {
    if (name == wanted) {
      return phase;
    }
  }
  return std::nullopt;
}

}  // namespace

std::string_view to_string(GuestPhase phase) {
  return name_of(kGuestNames, phase);
}

std::string_view to_string(HomePhase phase) {
  return name_of(kHomeNames, phase);
}

std::optional<GuestPhase> guest_phase_from_string(std::string_view name) {
  return phase_of<GuestPhase>(kGuestNames, name);
}

std::optional<HomePhase> home_phase_from_string(std::string_view name) {
  return phase_of<HomePhase>(kHomeNames, name);
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
      return wanted < GuestPhase::kIndependent || wanted == GuestPhase::kNeverRan ? now : wanted;
    default:
      // Forwards only; and what was let go has run.
      return wanted < now || (has_run(now) && wanted == GuestPhase::kNeverRan) ? now : wanted;
  }
}

HomePhase next_phase(HomePhase now, HomePhase wanted) {
  switch (now) {
    case HomePhase::kStayed:
    case HomePhase::kEnded:
      return now;
    case HomePhase::kEnding:
    case HomePhase::kChildrenLeft:
      return wanted > now ? wanted : now;
    case HomePhase::kIndependent:
      return wanted == HomePhase::kOffered || wanted == HomePhase::kServing ? now : wanted;
    case HomePhase::kServing:
      return wanted == HomePhase::kOffered ? now : wanted;
    default:
      return wanted;
  }
}

GuestPhase end_phase(GuestPhase now, int wait_status) {
  const bool killed = WIFSIGNALED(wait_status) && WTERMSIG(wait_status) == SIGKILL;
  if (now < GuestPhase::kMarked || (is_starting(now) && killed)) {
    return GuestPhase::kNeverRan;
  }
  return GuestPhase::kEnded;
}

bool is_starting(GuestPhase phase) {
  return phase == GuestPhase::kMarked || phase == GuestPhase::kKept;
}

bool has_run(GuestPhase phase) {
  return phase >= GuestPhase::kRan && phase != GuestPhase::kNeverRan;
}

bool has_ended(GuestPhase phase) {
  return phase >= GuestPhase::kNeverRan;
}

bool has_ended(HomePhase phase) {
  return phase >= HomePhase::kEnding;
}

bool is_independent(GuestPhase phase) {
  return phase >= GuestPhase::kIndependent && phase != GuestPhase::kNeverRan &&
         phase != GuestPhase::kEnded;
}

bool has_left(GuestPhase phase) {
  return phase == GuestPhase::kLeaving || phase == GuestPhase::kWentOn;
}

bool is_closed(GuestPhase phase) {
  return phase == GuestPhase::kWentOn || phase == GuestPhase::kOver;
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
