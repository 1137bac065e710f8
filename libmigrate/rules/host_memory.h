#pragma once

#include <cstdint>

#include "base/result.h"

namespace migrate {

/// How many bytes a process that comes to this host now could get without others losing theirs: the
/// least of what the kernel calls available and what is left below the limits of this process's
/// control groups (of either version). Errors: kSystem.
Result<std::uint64_t> available_memory_bytes();

}  // namespace migrate
