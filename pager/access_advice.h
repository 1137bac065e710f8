#pragma once

#include <cstdint>

#include "pager/page_range.h"

namespace migrate {

/// How a process says that it walks through memory, where that decides what is asked for ahead.
enum class AccessPattern : std::uint8_t {
  kSequential,  ///< What follows is asked for at once, in each mode.
  kRandom,      ///< Nothing is.
};

/// Of source ranges; a value.
struct AccessAdvice {
  PageRange range;
  AccessPattern pattern = AccessPattern::kSequential;
};

}  // namespace migrate
