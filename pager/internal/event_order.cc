#include "pager/internal/event_order.h"

#include <algorithm>

namespace migrate {

void EventOrder::apply(PageMap& map, const Remap& remap) {
  map.remap(remap.from, remap.to);
  expected_.push_back(remap.from);
}

void EventOrder::apply_early(PageMap& map) {
  for (bool applied = true; applied;) {
    applied = false;
    for (std::size_t i = 0; i < early_.size() && !applied; ++i) {
      const Remap remap = early_[i];
      if (map.at_destination({remap.to, remap.from.page_count}).empty()) {
        early_.erase(early_.begin() + static_cast<std::ptrdiff_t>(i));
        apply(map, remap);
        applied = true;
      }
    }
  }
}

void EventOrder::remapped(PageMap& map, PageRange from, std::uint64_t to) {
  if (from.empty()) {
    return;
  }
  if (map.at_destination({to, from.page_count}).empty()) {
    apply(map, {from, to});
  } else {
    early_.push_back({from, to});
  }
  apply_early(map);
}

void EventOrder::unmapped(PageMap& map, PageRange range) {
  const auto found = std::find(expected_.begin(), expected_.end(), range);
  if (found != expected_.end()) {
    expected_.erase(found);
    return;
  }
  map.unmap(range);
  apply_early(map);
}

void EventOrder::settled(PageMap& map) {
  for (const Remap& remap : early_) {
    map.remap(remap.from, remap.to);
  }
  early_.clear();
  expected_.clear();
}

}  // namespace migrate
