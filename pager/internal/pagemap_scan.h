#pragma once

#include <sys/ioctl.h>

#include <cstdint>

namespace migrate {

/// PAGEMAP_SCAN of Linux 6.7, which older headers lack.
struct ScanArgument {
  std::uint64_t size;
  std::uint64_t flags;
  std::uint64_t start;
  std::uint64_t end;
  std::uint64_t walk_end;
  std::uint64_t vector;
  std::uint64_t vector_length;
  std::uint64_t max_pages;
  std::uint64_t category_inverted;
  std::uint64_t category_mask;
  std::uint64_t category_anyof_mask;
  std::uint64_t return_mask;
};
static_assert(sizeof(ScanArgument) == 96);
struct ScanRegion {
  std::uint64_t start;
  std::uint64_t end;
  std::uint64_t categories;
};
inline constexpr unsigned long kScanRequest = _IOWR('f', 16, ScanArgument);
inline constexpr std::uint64_t kScanProtects = 1U << 0U;  // a flag: what matches is write-protected
inline constexpr std::uint64_t kPageIsTracked = 1U << 0U;  // of a userfaultfd with WP_ASYNC
inline constexpr std::uint64_t kPageIsWritten = 1U << 1U;
inline constexpr std::uint64_t kPageIsFile = 1U << 2U;
inline constexpr std::uint64_t kPageIsPresent = 1U << 3U;
inline constexpr std::uint64_t kPageIsSwapped = 1U << 4U;
inline constexpr std::uint64_t kPageIsZero = 1U << 5U;
inline constexpr std::uint64_t kPageIsGuard = 1U << 8U;  // Linux 6.15

}  // namespace migrate
