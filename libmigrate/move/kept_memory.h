#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "base/result.h"
#include "libmigrate/pages/page_feed.h"
#include "pager/page_range.h"
#include "pager/page_server.h"

namespace migrate {

/// The memory of one process that was frozen here, as its handovers see it: each serves it to one
/// destination, and it is given back when all of them have confirmed it. FrozenSource is the one
/// that there is; tests have another. Owned by the thread of the source's worker.
class KeptMemory {
 public:
  KeptMemory() = default;
  KeptMemory(const KeptMemory&) = delete;
  KeptMemory& operator=(const KeptMemory&) = delete;
  virtual ~KeptMemory() = default;

  /// What serves the pages to one destination. It must not outlive this. Errors: as
  /// PageFeed::create().
  virtual Result<std::unique_ptr<PageFeed>> make_feed(const PageServerOptions& options) = 0;
  /// The destination of `handover`, where the process is known to run, has `ranges`.
  virtual void note_confirmed(std::size_t handover, const std::vector<PageRange>& ranges) = 0;
  /// The destination of `handover` will never ask for a page again.
  virtual void leave(std::size_t handover) = 0;
};

}  // namespace migrate
