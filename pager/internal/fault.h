#pragma once

#include <chrono>
#include <cstdint>

#include "pager/page_range.h"

namespace migrate {

/// A thread waits for a page. A value type.
struct Fault {
  std::uint32_t space;
  std::uint32_t thread;  ///< As the kernel numbers it for the process; 0 where it does not tell.
  std::uint64_t address;
  std::chrono::steady_clock::time_point start;
};

/// A request that the source has not wholly answered. A value type.
struct Outstanding {
  std::uint32_t tag = 0;
  PageRange left;  ///< Empty: the slot is free.
  bool prefetch = false;
  std::chrono::steady_clock::time_point start;
};

}  // namespace migrate
