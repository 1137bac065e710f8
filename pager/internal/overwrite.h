#pragma once

#include <cstddef>
#include <span>

#include "base/result.h"
#include "pager/page_range.h"

namespace migrate {

/// Writes pages that are there, whatever their protection. `memory` is /proc/PID/mem. Without
/// `bytes` zeros. Errors: kNotFound (the process is gone), kSystem.
Result<void> overwrite(int memory, PageRange pages, std::span<const std::byte> bytes);

}  // namespace migrate
