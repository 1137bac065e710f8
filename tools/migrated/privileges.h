#pragma once

#include "base/result.h"

namespace migrate {

/// Keeps this process, and all that it forks, out of core files and out of the reach of debuggers
/// without CAP_SYS_PTRACE: it will hold keys, tokens, and pages of every user. A moved process gets
/// its own setting back. Errors: kSystem.
Result<void> protect_memory();

/// Gives up, here and for all that it forks, every capability that neither the daemon nor its
/// workers need. The bounding set stays: a moved process has its own part of it, with which it may
/// run set-user-id programs. Errors: kSystem.
Result<void> drop_capabilities();

/// Asks the kernel to end others first when memory runs out: as long as daemon, worker and init
/// live, a process that is away can go on. What is forked inherits it; a moved process gets its own
/// value back. Without CAP_SYS_RESOURCE nothing changes.
void ask_to_be_spared();

}  // namespace migrate
