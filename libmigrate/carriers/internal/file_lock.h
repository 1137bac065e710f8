#pragma once

#include "libmigrate/carriers/carrier.h"

namespace migrate::carriers {

// Shared locks of regular files (flock(2), fcntl(2)): the destination takes them before the source
// lets them go, which no exclusive lock allows.

/// Adds the locks that /proc shows of `file`, which has been found. False after a refusal.
bool find_locks(FindContext& context, const Sighting& seen, wire::OpenFile& file);

/// What is wrong with the locks of a file that a peer sent; null: nothing.
const char* flaw_of_locks(const wire::OpenFile& file);

/// Refuses a file on which this host's locks are not those of the source.
void compare_locks(CompareContext& context, const wire::OpenFile& file);

/// Adds the calls by which the process takes them.
void take_locks(Script& script, std::uint32_t number, const wire::OpenFile& file);

}  // namespace migrate::carriers
