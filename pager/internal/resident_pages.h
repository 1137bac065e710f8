#pragma once

#include "base/result.h"
#include "pager/page_set.h"

namespace migrate {

/// The pages of `range` that are in memory or in swap, whatever they are. `pagemap` is
/// /proc/PID/pagemap. Kernel: PAGEMAP_SCAN (6.7), else reads eight bytes for each page. Errors:
/// kSystem.
Result<PageSet> resident_pages(int pagemap, PageRange range);

}  // namespace migrate
