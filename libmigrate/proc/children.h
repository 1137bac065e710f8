#pragma once

#include <sys/types.h>

#include <vector>

#include "base/result.h"

namespace migrate {

/// The children that the threads of a process have, as this host numbers them. Of one that makes
/// and loses some meanwhile, those of a moment; nothing only if there was such a moment. Errors:
/// kSystem (the kernel has no such lists (CONFIG_PROC_CHILDREN), the process has ended, or a thread
/// of it just then, whose children are another one's now).
Result<std::vector<pid_t>> children_of(pid_t process);

}  // namespace migrate
