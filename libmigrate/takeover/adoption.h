#pragma once

#include <set>
#include <string>
#include <vector>

#include "base/unique_fd.h"
#include "libmigrate/host/worker_context.h"
#include "transport/preamble.h"

namespace migrate {

/// Takes over what a dead worker left in the session file `name`, if anything: runs in a forked
/// worker like the above. Returns at once if its worker lives after all.
void run_adopted_worker(const WorkerContext& context, const std::string& name);

/// Names of session files of which no worker takes care and some should. `closed` keeps, from one
/// look to the next, those that are notes of what is over, so that they are not opened again.
std::vector<std::string> orphaned_sessions(const std::string& state_directory,
                                           std::set<std::string>& closed);

/// Answers a source that asks what became of `session` when there is no worker for it, if that is
/// certain; else closes the connection, so that it asks again. Blocks for at most a few seconds.
void answer_resume(const WorkerContext& context, UniqueFd connection, const Preamble& preamble);

/// Tells the place of a process whose end its home knows, and has no worker for any more, that it
/// need not tell of it again. Else closes the connection.
void answer_guest(const WorkerContext& context, UniqueFd connection, const Preamble& preamble);

}  // namespace migrate
