#pragma once

#include <optional>

#include "libmigrate/state/phase.h"
#include "libmigrate/state/registry.h"

namespace migrate {

/// What the row of a guest says in a phase; nothing where the row stays as it is, or is gone.
/// `children_left`: once it has ended, whether children of it are in its cell.
std::optional<ProcessState> row_state(GuestPhase phase, bool children_left);

/// The same of a process at its home.
std::optional<ProcessState> row_state(HomePhase phase);

}  // namespace migrate
