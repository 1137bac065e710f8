#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "libmigrate/state/registry.h"

namespace migrate {

/// How far the worker of a process that came from elsewhere has come with it. The names are those
/// of docs/model/move.pml, which tests/lint/phases_test.py compares. The phase stands in the mark
/// of the session's file, and whoever takes over goes on from there.
enum class GuestPhase : std::uint32_t {
  kPrepared = 1,      ///< The offer was taken; what the process will be is being made.
  kAwaitsRun,         ///< The source has heard that the process is restored.
  kTold,              ///< The source has sent Run.
  kMarked,            ///< The process may run from now on, because it is about to be let go.
  kKept,              ///< The cell's init holds the userfaultfd.
  kRan,               ///< The process was let go: it runs on if its worker dies.
  kServing,           ///< The source was told so. Pages are owed to the process.
  kIndependent,       ///< No page is owed to it any more.
  kInDoubt,           ///< It was sent on from here, stands still, and may run at the next place.
  kLeaving,           ///< It runs at the next place, and this host still has pages of it.
  kWentOn,            ///< It went on from here, and nothing is left to take over.
  kNeverRan,          ///< It ended before it was let go.
  kEnded,             ///< It has ended. Pages may be owed to children of it.
  kEndedIndependent,  ///< It has ended, and no page is owed to anybody.
  kOver,              ///< It has ended, and nothing is left to take over.
};

/// How far the worker of a process at its home has come with it; as GuestPhase.
enum class HomePhase : std::uint32_t {
  kOffered = 101,  ///< A move is under way. SourceMove and the parked process know how far.
  kInDoubt,        ///< Run was sent, and nobody has said yet whether the process runs there.
  kServing,        ///< It runs elsewhere, and this host still has pages of it. Here is a deputy.
  kIndependent,    ///< It runs elsewhere and is owed nothing. Here is a deputy.
  kStayed,         ///< It runs on here, as if nobody had tried to move it.
  kEnding,         ///< It has ended elsewhere, and its deputy is being ended the same way.
  kChildrenLeft,   ///< It and its deputy have ended; a keeper serves children of it.
  kEnded,          ///< It has ended, and so has its deputy.
};

/// The name without its k, as in kAwaitsRun: "AwaitsRun". Empty for a number that is no phase.
std::string_view to_string(GuestPhase phase);
std::string_view to_string(HomePhase phase);
/// Whether a number read from a file is a phase of a home, or else of a guest.
bool is_phase(std::uint32_t number, bool of_home);

/// Where a session is after a step to `wanted`, which the worker or the cell's init takes: the two
/// know of each other's steps only by the record. What is final stays; what one of them says late
/// changes nothing, or what both say becomes one phase, as kEnded and kIndependent do.
GuestPhase next_phase(GuestPhase now, GuestPhase wanted);
HomePhase next_phase(HomePhase now, HomePhase wanted);

/// The step that the cell's init takes when it has reaped the process: one that was killed while
/// it was being let go died with its tracer, and has not run.
GuestPhase end_phase(GuestPhase now, int wait_status);

/// From kAwaitsRun until it was let go: the process stands still and waits for every step.
bool is_hurried(GuestPhase phase);
/// From kMarked until it was let go: whether it ran is not known.
bool is_starting(GuestPhase phase);
/// It was let go.
bool has_run(GuestPhase phase);
/// It has ended here, and how it ended is noted with the phase.
bool has_ended(GuestPhase phase);
bool has_ended(HomePhase phase);
/// No page is owed to it any more.
bool is_independent(GuestPhase phase);
/// It is known to run at a later place.
bool has_left(GuestPhase phase);
/// Nothing is left to take over.
bool is_closed(GuestPhase phase);

/// What can be said of a process by what its worker left behind.
enum class SessionVerdict : std::uint8_t {
  kWait,      ///< Nobody can say yet: a worker is there, or is about to take over.
  kNeverRan,  ///< It has not run here and never will; at its home: it runs on as if never moved.
  kRuns,      ///< It went on from here: it runs at a later place.
  kEnded,     ///< It has ended; how is noted with the phase.
  kKilled,    ///< It was killed with its cell, or at its home, and nobody noted it.
};

/// What a guest's record says. Whether its cell is there is of no account while its worker is. The
/// caller has waited until a process that dies with its worker is reaped
/// (SessionFile::await_start).
SessionVerdict verdict(GuestPhase phase, bool is_worker_there, bool is_cell_there);

/// What the record of a home says; `is_process_there`: it, its deputy or its keeper.
SessionVerdict verdict(HomePhase phase, bool is_worker_there, bool is_process_there);

/// What the row of a guest says in a phase; nothing where the row stays as it is, or is gone.
/// `children_left`: once it has ended, whether children of it are in its cell.
std::optional<ProcessState> row_state(GuestPhase phase, bool children_left);

/// The same of a process at its home.
std::optional<ProcessState> row_state(HomePhase phase);

}  // namespace migrate
