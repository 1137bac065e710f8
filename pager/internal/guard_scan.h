#pragma once

#include <sys/types.h>

#include "base/unique_fd.h"
#include "pager/page_range.h"

namespace migrate {

/// Finds guards (MADV_GUARD_INSTALL), of which no userfaultfd event tells, and which UFFDIO_COPY
/// would replace by the page that was there before. Of one process, as long as it is one address
/// space. Kernel: PAGE_IS_GUARD (6.15); without it there seem to be none.
/// Owned by its address space's lock.
class GuardScan {
 public:
  /// The first pages of `range` that are guarded, or none. `pid`: the host's; 0 if not known (yet).
  PageRange first_in(PageRange range, pid_t pid);

 private:
  UniqueFd pagemap_;
  bool usable_ = true;
};

}  // namespace migrate
