#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "libmigrate/state/registry.h"
#include "tools/migrated/request.h"

namespace migrate {

/// What of processes users see: their own rows, as of when they were moved. That is no right to do
/// anything with the process, which is asked of the kernel where it is.
bool may_see(const Asker& asker, const ProcessRecord& record);

/// The rows of the process that the request names, the one to act on first; empty if the registry
/// does not know it. Errors: kRefused for processes of others, kInvalid (none is named).
Result<std::vector<ProcessRecord>> find_records(Registry& registry, const Request& request);

/// Who looks after the process that a request is about: a row, or nobody yet. Errors: as
/// find_records(), kNotFound (there is no such process, or it is over).
Result<std::optional<ProcessRecord>> find_keeper(Registry& registry, const Request& request);

/// That this host does not know the process.
Error unknown_process(const Request& request);

}  // namespace migrate
