#pragma once

#include <sys/types.h>

#include <cstdint>
#include <utility>
#include <vector>

namespace migrate {

/// Threads of a process, leader first: id as this host sees it, and as the process itself does.
using ThreadIds = std::vector<std::pair<pid_t, std::uint32_t>>;

}  // namespace migrate
