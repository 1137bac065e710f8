#pragma once

#include <cstdint>

#include "libmigrate/state/phase.h"

namespace migrate {

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

}  // namespace migrate
