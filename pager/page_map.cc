#include "pager/page_map.h"

#include <iterator>
#include <utility>

namespace migrate {
namespace {

PageRange source_of(const PagerRegion& region) {
  return {region.source_address, region.destination.page_count};
}

/// The part of `region` of `page_count` pages that starts `skip_bytes` into it.
PagerRegion part_of(const PagerRegion& region, std::uint64_t skip_bytes, std::uint64_t page_count) {
  PagerRegion part = region;
  part.destination = {region.destination.start + skip_bytes, page_count};
  part.source_address += skip_bytes;
  part.file_offset += skip_bytes;
  return part;
}

/// The first element of `map` that may reach beyond `address`: the last that starts at or before
/// it, or else the first after it.
template <class Map>
auto at_or_after(Map& map, std::uint64_t address) {
  auto found = map.upper_bound(address);
  return found == map.begin() ? found : std::prev(found);
}

}  // namespace

Result<void> PageMap::add(const PagerRegion& region) {
  const PageRange source = source_of(region);
  if (region.destination.empty() || !region.destination.valid() || !source.valid() ||
      region.file_offset % kPageBytes != 0) {
    Error error = make_error(ErrorCode::kInvalid, "add a region to the page map");
    error.address = region.destination.start;
    return fail(std::move(error));
  }
  if (!at_destination(region.destination).empty() || first_at_source(source)) {
    Error error = make_error(ErrorCode::kInvalid, "add a region that overlaps another");
    error.address = region.destination.start;
    return fail(std::move(error));
  }
  insert(region);
  set_state(source, PageState::kUnknown);
  return {};
}

void PageMap::insert(const PagerRegion& region) {
  regions_.emplace(region.destination.start, region);
  by_source_.emplace(region.source_address, region.destination.start);
  has_shared_memory_ = has_shared_memory_ || region.kind == RegionKind::kSharedMemory;
}

void PageMap::erase(const PagerRegion& region) {
  by_source_.erase(region.source_address);
  regions_.erase(region.destination.start);
}

std::optional<PagerRegion> PageMap::find(std::uint64_t address) const {
  const auto found = at_or_after(regions_, address);
  if (found == regions_.end() || !found->second.destination.contains(address)) {
    return std::nullopt;
  }
  const PagerRegion& region = found->second;
  const std::uint64_t skip_bytes = page_floor(address) - region.destination.start;
  return part_of(region, skip_bytes, region.destination.page_count - skip_bytes / kPageBytes);
}

std::vector<PagerRegion> PageMap::at_destination(PageRange range) const {
  std::vector<PagerRegion> parts;
  for (auto it = at_or_after(regions_, range.start);
       it != regions_.end() && it->first < range.end(); ++it) {
    const PageRange common = it->second.destination.intersect(range);
    if (!common.empty()) {
      parts.push_back(part_of(it->second, common.start - it->first, common.page_count));
    }
  }
  return parts;
}

std::optional<PagerRegion> PageMap::first_at_source(PageRange range) const {
  for (auto it = at_or_after(by_source_, range.start);
       it != by_source_.end() && it->first < range.end(); ++it) {
    const PagerRegion& region = regions_.at(it->second);
    const PageRange common = source_of(region).intersect(range);
    if (!common.empty()) {
      return part_of(region, common.start - it->first, common.page_count);
    }
  }
  return std::nullopt;
}

std::vector<PagerRegion> PageMap::regions() const {
  std::vector<PagerRegion> all;
  all.reserve(regions_.size());
  for (const auto& [start, region] : regions_) {
    all.push_back(region);
  }
  return all;
}

std::vector<PagerRegion> PageMap::extract(PageRange range) {
  std::vector<PagerRegion> parts = at_destination(range);
  for (const PagerRegion& part : parts) {
    const PagerRegion whole = at_or_after(regions_, part.destination.start)->second;
    const std::uint64_t before = (part.destination.start - whole.destination.start) / kPageBytes;
    const std::uint64_t after = (whole.destination.end() - part.destination.end()) / kPageBytes;
    erase(whole);
    if (before > 0) {
      insert(part_of(whole, 0, before));
    }
    if (after > 0) {
      insert(part_of(whole, part.destination.end() - whole.destination.start, after));
    }
  }
  return parts;
}

void PageMap::unmap(PageRange range) {
  for (const PagerRegion& part : extract(range)) {
    set_state(source_of(part), PageState::kPresent);
  }
}

bool PageMap::remove(PageRange range) {
  bool any_of_file = false;
  for (const PagerRegion& part : at_destination(range)) {
    switch (part.kind) {
      case RegionKind::kAnonymous:
        set_state(source_of(part), PageState::kPresent);
        break;
      case RegionKind::kFileCopy:
        set_state(source_of(part), PageState::kLocalFile);
        any_of_file = true;
        break;
      case RegionKind::kSharedMemory:
        break;
    }
  }
  return any_of_file;
}

void PageMap::remap(PageRange from, std::uint64_t to) {
  std::vector<PagerRegion> parts = extract(from);
  unmap({to, from.page_count});
  for (PagerRegion& part : parts) {
    part.destination.start = part.destination.start - from.start + to;
    insert(part);
  }
}

Result<void> PageMap::keep_ledger() {
  std::vector<PageRange> sources;
  for (const auto& [start, region] : regions_) {
    sources.push_back(source_of(region));
  }
  auto ledger = MIGRATE_TRY(PageLedger::create(sources));
  for (PageRange left : sources) {
    while (!left.empty()) {
      const auto run = run_at(left);
      ledger->set({left.start, run.page_count}, run.state);
      left = PageRange::between(left.start + run.page_count * kPageBytes, left.end());
    }
  }
  MIGRATE_TRY(ledger->save({regions(), {}, {}}));
  ledger_ = std::move(ledger);
  return {};
}

Result<PageMap> PageMap::from_ledger(std::unique_ptr<PageLedger> ledger) {
  PageMap map;
  const PageLedger::Regions noted = MIGRATE_TRY(ledger->regions());
  for (const PagerRegion& region : noted.regions) {
    MIGRATE_TRY(map.add(region));
  }
  ledger->for_each([&map](PageRange source, PageState state) {
    map.states_.set(source.start / kPageBytes, source.page_count, state);
  });
  map.ledger_ = std::move(ledger);
  return map;
}

bool PageMap::withhold(PageRange range, bool from_child) {
  bool changed = false;
  for (const PagerRegion& part : at_destination(range)) {
    if (part.withheld_from_child != from_child) {
      for (PagerRegion& piece : extract(part.destination)) {
        piece.withheld_from_child = from_child;
        insert(piece);
      }
      changed = true;
    }
  }
  return changed;
}

bool PageMap::withhold_from_child(const std::vector<PageRange>& ranges) {
  bool changed = false;
  std::uint64_t shared_from = 0;
  for (const PageRange& range : ranges) {
    changed = withhold(PageRange::between(shared_from, range.start), false) || changed;
    changed = withhold(range, true) || changed;
    shared_from = range.end();
  }
  return withhold(PageRange::between(shared_from, kAddressLimit), false) || changed;
}

PageMap PageMap::clone_for_fork() const {
  PageMap child;
  child.regions_ = regions_;
  child.by_source_ = by_source_;
  child.states_ = states_.clone();
  child.has_shared_memory_ = has_shared_memory_;
  for (const auto& [start, region] : regions_) {
    if (region.withheld_from_child) {
      child.unmap(region.destination);
    }
  }
  return child;
}

}  // namespace migrate
