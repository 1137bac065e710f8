#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "pager/page_range.h"

namespace migrate::inspect {

/// Whether pages of this range of private file mapping are no longer the file's own: present or in
/// swap, and anonymous. `pagemap` is /proc/PID/pagemap. Kernel: PAGEMAP_SCAN (6.7), else reads
/// eight bytes per page. Errors: kSystem.
Result<bool> has_private_pages(int pagemap, std::uint64_t start, std::uint64_t end);

/// The guard regions in the range (madvise MADV_GUARD_INSTALL), ascending; none on kernels that
/// cannot tell (before 6.15). Errors: kSystem.
Result<std::vector<PageRange>> guard_regions(int pagemap, std::uint64_t start, std::uint64_t end);

}  // namespace migrate::inspect
