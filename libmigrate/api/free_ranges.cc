#include "libmigrate/api/free_ranges.h"

#include <iterator>

namespace migrate::client {

void FreeRanges::add(Range range) {
  if (range.start < range.end) {
    free_.emplace(range.start, range.end);
    free_sizes_.emplace(range.end - range.start, range.start);
  }
}

void FreeRanges::remove(Range range) {
  free_.erase(range.start);
  free_sizes_.erase({range.end - range.start, range.start});
}

std::optional<std::size_t> FreeRanges::take(std::size_t bytes, std::size_t alignment) {
  for (auto each = free_sizes_.lower_bound({bytes, 0}); each != free_sizes_.end(); ++each) {
    const Range range{each->second, each->second + each->first};
    const std::size_t start = (range.start + alignment - 1) & ~(alignment - 1);
    if (start < range.start || start > range.end || range.end - start < bytes) {
      continue;
    }
    taken_.emplace(start, start + bytes);
    remove(range);
    add({range.start, start});
    add({start + bytes, range.end});
    return start;
  }
  return std::nullopt;
}

std::optional<FreeRanges::Range> FreeRanges::give(std::size_t start) {
  const auto found = taken_.find(start);
  if (found == taken_.end()) {
    return std::nullopt;
  }
  Range range{found->first, found->second};
  taken_.erase(found);
  auto next = free_.lower_bound(range.start);
  if (next != free_.end() && next->first == range.end) {
    const Range after{next->first, next->second};
    range.end = after.end;
    next = std::next(next);
    remove(after);
  }
  if (next != free_.begin()) {
    const Range before{std::prev(next)->first, std::prev(next)->second};
    if (before.end == range.start) {
      range.start = before.start;
      remove(before);
    }
  }
  add(range);
  return range;
}

}  // namespace migrate::client
