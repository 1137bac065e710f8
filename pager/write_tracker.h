#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "pager/page_set.h"
#include "pager/region.h"

namespace migrate {

/// Tells which pages of a running process were written, by a userfaultfd of that process with
/// asynchronous write protection (UFFD_FEATURE_WP_ASYNC) and PAGEMAP_SCAN (both Linux 6.7). The
/// kernel takes all of it back when this ends, or the process that has it dies.
///
/// Nothing is believed for long: a page counts as unwritten only if its entry in the page table
/// carries the mark that take_written() made, in memory that is still watched. What the process has
/// mapped, moved (mremap) or given back since carries none. Owned by one thread.
class WriteTracker {
 public:
  /// Whether this kernel can do it. Errors: kUnsupported, saying what is missing.
  static Result<void> check_support();

  /// `userfault`: fresh, made by the process itself, in user mode only (UFFD_USER_MODE_ONLY) as no
  /// fault is ever reported by it. `pagemap`: /proc/PID/pagemap, as it was opened when the process
  /// surely was the one that is meant. Errors: kUnsupported.
  static Result<WriteTracker> create(UniqueFd userfault, UniqueFd pagemap);

  /// Watches what of `regions` is private memory whose absent pages the destination can make up.
  /// What cannot be watched, since it has changed or is watched by somebody else, is left out.
  void watch(const std::vector<ServedRegion>& regions);

  /// The pages that were written since the last call; at the first all that exist. Each is watched
  /// anew before this returns: to be read after it. Errors: kNotFound (the process is gone),
  /// kSystem.
  Result<PageSet> take_written();
  /// The pages that exist and were not written since take_written() told of them. Certain while the
  /// process stands still. Errors: as take_written().
  Result<PageSet> unwritten();

 private:
  WriteTracker(UniqueFd userfault, UniqueFd pagemap);

  Result<PageSet> scan(bool written);
  Result<void> scan_region(const ServedRegion& region, bool written, PageSet& found);

  UniqueFd userfault_;
  UniqueFd pagemap_;
  std::vector<ServedRegion> watched_;  // ascending
  std::uint64_t shows_guards_;         // see ProcessPageReader
};

}  // namespace migrate
