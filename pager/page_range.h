#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "base/page_size.h"

namespace migrate {

/// Highest address, in bytes, that a page of a user process can end at (47-bit addresses).
inline constexpr std::uint64_t kAddressLimit = std::uint64_t{1} << 47U;

constexpr std::uint64_t page_floor(std::uint64_t address) {
  return address & ~(kPageBytes - 1);
}

/// Adjacent pages [start, end()) of one address space. `start` is in bytes and page-aligned.
/// A value type.
struct PageRange {
  std::uint64_t start = 0;
  std::uint64_t page_count = 0;

  /// The range [start, end), both page-aligned; empty when end <= start.
  static constexpr PageRange between(std::uint64_t start, std::uint64_t end) {
    return {start, end > start ? (end - start) / kPageBytes : 0};
  }

  constexpr std::uint64_t bytes() const { return page_count * kPageBytes; }
  constexpr std::uint64_t end() const { return start + bytes(); }
  constexpr bool empty() const { return page_count == 0; }
  constexpr bool contains(std::uint64_t address) const {
    return address >= start && address < end();
  }
  constexpr bool contains(const PageRange& other) const {
    return other.start >= start && other.end() <= end();
  }
  constexpr PageRange intersect(const PageRange& other) const {
    const std::uint64_t low = std::max(start, other.start);
    return between(low, std::max(low, std::min(end(), other.end())));
  }
  /// True if it is aligned, does not wrap and ends below kAddressLimit. Check what peers send.
  constexpr bool valid() const {
    return start % kPageBytes == 0 && start < kAddressLimit &&
           page_count <= (kAddressLimit - start) / kPageBytes;
  }
  friend constexpr bool operator==(const PageRange&, const PageRange&) = default;
};

}  // namespace migrate
