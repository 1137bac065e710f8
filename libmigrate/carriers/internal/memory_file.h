#pragma once

#include "libmigrate/carriers/carrier.h"

namespace migrate::carriers {

/// Whether the file has no name any more in any folder, and will have none.
bool is_deleted(const FindContext& context, const Sighting& seen);

/// Finds a file that is_deleted() as a memory file: the destination makes one in its place, which
/// has no name either. False after a refusal.
bool find_deleted_file(FindContext& context, const Sighting& seen, wire::OpenFile& file);

}  // namespace migrate::carriers
