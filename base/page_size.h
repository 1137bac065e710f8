#pragma once

#include <cstdint>

namespace migrate {

/// Size of a page in bytes; huge pages count as many of these.
inline constexpr std::uint64_t kPageBytes = 4096;

}  // namespace migrate
