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

}  // namespace migrate
