#pragma once

#include <chrono>
#include <cstdint>
#include <vector>

#include "base/result.h"
#include "pager/page_range.h"

namespace migrate::inspect {

/// How much of an address space to look at in one call: the kernel holds its lock meanwhile, for
/// which others wait who change mappings. Learned from how long it took, which depends on what is
/// there. A value type.
class ScanPiece {
 public:
  using Clock = std::chrono::steady_clock;

  /// A multiple of what one page table holds.
  std::uint64_t bytes() const { return bytes_; }
  /// The last piece took so long.
  void note(Clock::duration took);

 private:
  std::uint64_t bytes_ = std::uint64_t{64} << 20U;
};

/// Whether pages of this range of private file mapping are no longer the file's own: present or in
/// swap, and anonymous. `pagemap` is /proc/PID/pagemap. Kernel: PAGEMAP_SCAN (6.7), else reads
/// eight bytes per page. Errors: kSystem.
Result<bool> has_private_pages(int pagemap, std::uint64_t start, std::uint64_t end);

/// The guard regions in the range (madvise MADV_GUARD_INSTALL), ascending; none on kernels that
/// cannot tell (before 6.15). Looks at one piece after the other. Errors: kSystem.
Result<std::vector<PageRange>> guard_regions(int pagemap, std::uint64_t start, std::uint64_t end);

}  // namespace migrate::inspect
