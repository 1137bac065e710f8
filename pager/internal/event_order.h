#pragma once

#include <cstdint>
#include <vector>

#include "pager/page_ledger.h"
#include "pager/page_map.h"

namespace migrate {

/// Applies remap and unmap events of one address space to its map in the order in which they
/// happened, which may differ from that in which the kernel reports them: a thread queues its
/// events after it let go of the address space, and others may have reused the addresses by then.
///
/// - mremap(P to Q) is reported as remap, and later, when that was read, as unmap of P. Meanwhile
///   another thread may have moved memory to P, which that unmap does not concern.
/// - A remap to P may be reported before the remap or unmap that freed P. Whatever a thread itself
///   replaces is always reported first, so that a remap onto something that is still there has
///   come too early.
///
/// Owned by its user's lock.
class EventOrder {
 public:
  void remapped(PageMap& map, PageRange from, std::uint64_t to);
  void unmapped(PageMap& map, PageRange range);
  /// No change is under way and every event was read: what is still awaited will not come.
  void settled(PageMap& map);
  /// True if settled() would do anything.
  bool awaits() const { return !expected_.empty() || !early_.empty(); }

  /// What a new pager needs to go on.
  void save(PageLedger::Regions& regions) const {
    regions.expected = expected_;
    regions.early = early_;
  }
  void load(const PageLedger::Regions& regions) {
    expected_ = regions.expected;
    early_ = regions.early;
  }

 private:
  using Remap = PageLedger::Remap;
  void apply(PageMap& map, const Remap& remap);
  void apply_early(PageMap& map);

  std::vector<PageRange> expected_;  // sources of remaps, whose unmap events are still to come
  std::vector<Remap> early_;         // remaps that came too early
};

}  // namespace migrate
