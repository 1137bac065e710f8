#pragma once

#include "libmigrate/host/worker_context.h"
#include "libmigrate/state/session_file.h"
#include "transport/preamble.h"

namespace migrate {

/// Takes away all that is left on this host of a process that never ran here
/// (SessionVerdict::kNeverRan): its cell, whose init waits for a new worker, its record, its file.
void clear_session(const WorkerContext& context, SessionFile& file, const SessionId& session);

}  // namespace migrate
