#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "base/result.h"
#include "pager/internal/state_table.h"
#include "pager/page_ledger.h"
#include "pager/region.h"

namespace migrate {

/// What is known of each page of one address space at the destination.
///
/// Regions say which source page belongs at which destination address; the kernel's events move and
/// remove them. States belong to source pages, so that moving a region moves no state. A source
/// page belongs at one destination address at most; one that belongs nowhere is kPresent.
/// Owned by its user's lock. Finding a page costs two lookups, whatever the size of the memory.
class PageMap {
 public:
  PageMap() = default;
  PageMap(PageMap&&) noexcept = default;
  PageMap& operator=(PageMap&&) noexcept = default;

  /// Adds a region, all pages of which become kUnknown. Errors: kInvalid (not page ranges, or it
  /// overlaps another one at either side).
  Result<void> add(const PagerRegion& region);

  /// The part of the region at destination address `address` that starts with its page.
  std::optional<PagerRegion> find(std::uint64_t address) const;
  /// The parts of regions whose destination pages lie in `range`, ascending by it.
  std::vector<PagerRegion> at_destination(PageRange range) const;
  /// The first part of a region whose source pages lie in `range`; does not allocate.
  std::optional<PagerRegion> first_at_source(PageRange range) const;
  std::vector<PagerRegion> regions() const;
  /// There is, or was, a region of shared memory.
  bool has_shared_memory() const { return has_shared_memory_; }

  PageState state(std::uint64_t source_address) const {
    return states_.get(source_address / kPageBytes);
  }
  /// The pages of `source` from its start on that have one state.
  StateTable::Run run_at(PageRange source) const {
    return states_.run_at(source.start / kPageBytes, source.page_count);
  }
  /// Only for source pages that belong to a region.
  void set_state(PageRange source, PageState state) {
    states_.set(source.start / kPageBytes, source.page_count, state);
    if (ledger_) {
      ledger_->set(source, state);
    }
  }

  /// Begins a ledger that follows every change of state from now on, and of regions by the calls of
  /// its save(). Errors: as PageLedger::create.
  Result<void> keep_ledger();
  /// Null before keep_ledger(). Borrowed.
  PageLedger* ledger() const { return ledger_.get(); }
  /// The map that a ledger tells of; it goes on following the map.
  static Result<PageMap> from_ledger(std::unique_ptr<PageLedger> ledger);

  /// mremap: what was mapped at `from` is now at `to`, where nothing else is any more.
  void remap(PageRange from, std::uint64_t to);
  /// madvise(MADV_DONTNEED, MADV_FREE, MADV_REMOVE): anonymous pages read as zero from now on,
  /// those of file copies as the file again (returns true if there were any). Shared memory keeps
  /// its state: MADV_DONTNEED, which cannot be told from MADV_REMOVE, loses no content.
  bool remove(PageRange range);
  /// munmap, and what was mapped over it: nothing belongs at `range` any more.
  void unmap(PageRange range);
  /// What a child will not get is `ranges`, ascending, and all else it will. True if that is news.
  bool withhold_from_child(const std::vector<PageRange>& ranges);
  /// What a forked child's address space owes.
  PageMap clone_for_fork() const;

  /// Pages that only the source has, as far as known.
  std::uint64_t owed_pages() const {
    return states_.count(PageState::kUnknown) + states_.count(PageState::kRequested);
  }
  /// The same and those still to be filled from local files: 0 when the pager is no longer needed.
  std::uint64_t unfinished_pages() const {
    return owed_pages() + states_.count(PageState::kLocalFile);
  }
  std::uint64_t count(PageState state) const { return states_.count(state); }

 private:
  /// Takes the parts of regions at destination `range` out, leaving their states as they are.
  std::vector<PagerRegion> extract(PageRange range);
  bool withhold(PageRange range, bool from_child);
  void insert(const PagerRegion& region);
  void erase(const PagerRegion& region);

  std::map<std::uint64_t, PagerRegion> regions_;      // by destination start
  std::map<std::uint64_t, std::uint64_t> by_source_;  // source start to destination start
  StateTable states_;                                 // by source page number
  bool has_shared_memory_ = false;
  std::unique_ptr<PageLedger> ledger_;
};

}  // namespace migrate
