#pragma once

#include <cstdint>

#include "pager/internal/event_order.h"
#include "pager/internal/fork_watch.h"
#include "pager/internal/guard_scan.h"
#include "pager/page_map.h"
#include "pager/userfault.h"

namespace migrate {

/// The memory of the moved process, or of one that it has forked, as the pager knows it.
struct AddressSpace {
  std::uint32_t id;
  Userfault userfault;
  PageMap map;
  EventOrder order = {};
  bool gone = false;
  ForkWatch watch = {};
  GuardScan guards = {};
};

}  // namespace migrate
