#pragma once

#include <cstdint>
#include <vector>

#include "pager/page_range.h"

namespace migrate {

/// A set of pages: ascending ranges, not empty, that neither overlap nor touch. All functions take
/// time in proportion to the number of ranges.
using PageSet = std::vector<PageRange>;

/// The pages of `ranges`, which may come in any order and overlap.
PageSet page_set(std::vector<PageRange> ranges);
/// Adds a range that begins at or after the end of the last one.
void append_to(PageSet& pages, PageRange range);

PageSet join(const PageSet& a, const PageSet& b);
PageSet common(const PageSet& a, const PageSet& b);
/// What of `pages` is not in `others`.
PageSet without(const PageSet& pages, const PageSet& others);
/// The lowest pages of the set, so many of them, or all.
PageSet first_pages(const PageSet& pages, std::uint64_t page_count);

std::uint64_t page_total(const PageSet& pages);

}  // namespace migrate
