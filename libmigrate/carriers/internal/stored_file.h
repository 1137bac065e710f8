#pragma once

#include "libmigrate/carriers/carrier.h"

namespace migrate::carriers {

// What files and directories have in common.

/// Refuses what no file system stores, or what is not found under its path any more; notes who else
/// has it open. False after a refusal.
bool find_stored_file(FindContext& context, const Sighting& seen, wire::OpenFile& file);

/// What is wrong with a file that is opened by its path; null: nothing.
const char* flaw_of_path(const wire::Objects& objects, const wire::OpenFile& file);

/// Opens it by its path. Errors: see MakeContext::open().
Result<UniqueFd> open_by_path(MakeContext& context, const wire::OpenFile& file);

/// The same, and goes to its position.
Result<UniqueFd> open_stored_file(MakeContext& context, const wire::OpenFile& file);

}  // namespace migrate::carriers
