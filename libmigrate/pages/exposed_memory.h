#pragma once

#include <sys/types.h>

#include <atomic>
#include <vector>

#include "libmigrate/pages/one_sided_link.h"
#include "pager/region.h"

namespace migrate {

/// Exposes the shared anonymous memory and memfds among `regions` of a parked process over
/// `connection`: what exists of it, holes left out, in at most kMaxWindows pieces. It is pinned
/// while the connection lives. Where the rest cannot be had, it is left out, with a line in the
/// log: its pages are then asked for. Blocks for as long as pinning takes, to the end of a GiB once
/// `ends` (borrowed) is set. Any thread.
std::vector<ReadableWindow> expose_shared_memory(pid_t process,
                                                 const std::vector<ServedRegion>& regions,
                                                 OneSidedChannel& connection,
                                                 const std::atomic<bool>& ends);

}  // namespace migrate
