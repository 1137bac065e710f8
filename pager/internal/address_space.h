#pragma once

#include <cstdint>
#include <vector>

#include "pager/internal/event_order.h"
#include "pager/internal/fork_watch.h"
#include "pager/internal/guard_scan.h"
#include "pager/internal/stalled_threads.h"
#include "pager/page_map.h"
#include "pager/userfault.h"

namespace migrate {

/// The memory of the moved process, or of one that it has forked, as the pager knows it.
struct AddressSpace {
  /// A thread waits at an address that is in no region, for a page that is asked for another one.
  struct TwinFault {
    std::uint64_t address;
    std::uint64_t source_address;
  };

  std::uint32_t id;
  Userfault userfault;
  PageMap map;
  EventOrder order = {};
  bool gone = false;
  ForkWatch watch = {};
  GuardScan guards = {};
  std::vector<TwinFault> twin_faults = {};
  StalledThreads stalled = {};
};

}  // namespace migrate
