#pragma once

#include "libmigrate/registry/session_file.h"
#include "libmigrate/session/worker.h"

namespace migrate {

/// Take over, as a worker, what a dead one left in a session file.
void run_adopted_home(const WorkerContext& context, SessionFile file, const SessionId& process);
void run_adopted_resident(const WorkerContext& context, SessionFile file, const SessionId& session);

/// Takes away all that is left on this host of a process that never ran here (SessionFile::
/// never_ran): its cell, whose init waits for a new worker, its record, its file.
void clear_session(const WorkerContext& context, SessionFile& file, const SessionId& session);

}  // namespace migrate
