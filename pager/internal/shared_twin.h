#pragma once

#include <sys/types.h>

#include <cstdint>
#include <vector>

namespace migrate {

/// The other addresses at which the process `pid` has the page mapped that is at `address`, if that
/// is shared memory: mremap with an old size of 0 or MREMAP_DONTUNMAP maps a page twice, and no
/// event tells the length or that there are two. Reads /proc/PID/maps.
std::vector<std::uint64_t> shared_twins(pid_t pid, std::uint64_t address);

}  // namespace migrate
