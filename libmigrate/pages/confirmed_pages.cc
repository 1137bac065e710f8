#include "libmigrate/pages/confirmed_pages.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace migrate {

void ConfirmedPages::note(std::size_t handover, const std::vector<PageRange>& ranges) {
  if (confirmed_.size() == 1) {
    untaken_.insert(untaken_.end(), ranges.begin(), ranges.end());
    return;
  }
  for (const PageRange& range : ranges) {
    add(confirmed_[handover].pages, range);
    release(range);
  }
}

// What the others have confirmed waits for nobody any more. One of them is enough to look through:
// what all have confirmed is part of what it has.
void ConfirmedPages::leave(std::size_t handover) {
  confirmed_[handover].left = true;
  const auto stays = std::find_if(confirmed_.begin(), confirmed_.end(),
                                  [](const Handover& other) { return !other.left; });
  if (stays == confirmed_.end()) {
    return;
  }
  for (const auto& [start, end] : stays->pages) {
    release(PageRange::between(start, end));
  }
}

std::vector<PageRange> ConfirmedPages::take() {
  std::vector<PageRange> taken = std::exchange(untaken_, {});
  return withheld_.empty() ? taken : without(page_set(std::move(taken)), withheld_);
}

// Joins what it overlaps or touches.
void ConfirmedPages::add(Ranges& ranges, PageRange range) {
  if (range.empty()) {
    return;
  }
  std::uint64_t start = range.start;
  std::uint64_t end = range.end();
  auto next = ranges.upper_bound(start);
  if (next != ranges.begin() && std::prev(next)->second >= start) {
    --next;
    start = next->first;
  }
  while (next != ranges.end() && next->first <= end) {
    end = std::max(end, next->second);
    next = ranges.erase(next);
  }
  ranges.emplace(start, end);
}

std::vector<PageRange> ConfirmedPages::common(const Ranges& ranges, PageRange range) {
  std::vector<PageRange> parts;
  auto next = ranges.upper_bound(range.start);
  next = next == ranges.begin() ? next : std::prev(next);
  for (; next != ranges.end() && next->first < range.end(); ++next) {
    const PageRange part = range.intersect(PageRange::between(next->first, next->second));
    if (!part.empty()) {
      parts.push_back(part);
    }
  }
  return parts;
}

std::vector<PageRange> ConfirmedPages::missing(const Ranges& ranges, PageRange range) {
  std::vector<PageRange> parts;
  std::uint64_t start = range.start;
  for (const PageRange& there : common(ranges, range)) {
    if (there.start > start) {
      parts.push_back(PageRange::between(start, there.start));
    }
    start = there.end();
  }
  if (start < range.end()) {
    parts.push_back(PageRange::between(start, range.end()));
  }
  return parts;
}

// What of `range` all have confirmed and was not given back before.
void ConfirmedPages::release(PageRange range) {
  std::vector<PageRange> parts = missing(released_, range);
  for (const Handover& handover : confirmed_) {
    if (handover.left) {
      continue;
    }
    std::vector<PageRange> narrower;
    for (const PageRange& part : parts) {
      const std::vector<PageRange> shared = common(handover.pages, part);
      narrower.insert(narrower.end(), shared.begin(), shared.end());
    }
    parts = std::move(narrower);
  }
  for (const PageRange& part : parts) {
    add(released_, part);
  }
  untaken_.insert(untaken_.end(), parts.begin(), parts.end());
}

Original give_back(ConfirmedPages& pages,
                   const std::function<Result<void>(const std::vector<PageRange>&)>& free) {
  const std::vector<PageRange> ranges = pages.take();
  if (ranges.empty()) {
    return Original::kHere;
  }
  const Result<void> freed = free(ranges);
  if (freed) {
    return Original::kHere;
  }
  return freed.error().code == ErrorCode::kNotFound ? Original::kGone : Original::kHere;
}

}  // namespace migrate
