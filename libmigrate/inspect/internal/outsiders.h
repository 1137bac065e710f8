#pragma once

#include <cstdint>
#include <string>

#include "libmigrate/inspect/internal/process_view.h"

namespace migrate::inspect {

/// Refuses what other processes of this /proc (the caller's own excepted) hold of `objects`, and
/// notes in `findings` what they do not; what was found private before is not looked for again.
/// Blocks: reads mappings and descriptors of every process, unless there is nothing to look for.
void check_outsiders(const ProcessView& view, const SharedObjects& objects, Findings& findings,
                     Refusals& refusals);

/// Refuses children of the process and processes that share its memory or descriptor table.
void check_relatives(const ProcessView& view, Refusals& refusals);

/// The same among the processes that were born since findings.newest_pid was the newest, of which
/// also what they hold of `objects` is refused, private before or not; brings that pid up to date
/// if nothing is. Costs one small read if none was born.
void check_newcomers(const ProcessView& view, const SharedObjects& objects, Findings& findings,
                     Refusals& refusals);

/// The newest pid of this PID namespace; 0 if it cannot be told.
std::uint64_t newest_pid(const ProcessView& view);

/// Whether the process is in a cell of this daemon or another of this host: it came here, or is a
/// descendant of one that did.
bool is_in_cell(const ProcessView& view);

/// How a process is called in refusals: "pid 17 (sh)".
std::string describe_process(pid_t pid);

}  // namespace migrate::inspect
