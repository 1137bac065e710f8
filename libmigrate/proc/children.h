#pragma once

#include <sys/types.h>

#include <vector>

namespace migrate {

/// The children that the threads of a process have, as this host numbers them; those of a moment,
/// if it makes more meanwhile. None of a process that is not there, and where the kernel does not
/// tell (CONFIG_PROC_CHILDREN).
std::vector<pid_t> children_of(pid_t process);

}  // namespace migrate
