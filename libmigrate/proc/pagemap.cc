#include "libmigrate/proc/pagemap.h"

#include <linux/ioctl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <span>
#include <string>

#include "pager/page_range.h"

namespace migrate::inspect {
namespace {

// From the kernel's interface (linux/fs.h of 6.7, newer than Debian 12's headers).
struct PageRegion {
  std::uint64_t start;
  std::uint64_t end;
  std::uint64_t categories;
};
struct PagemapScan {
  std::uint64_t size;
  std::uint64_t flags;
  std::uint64_t start;
  std::uint64_t end;
  std::uint64_t walk_end;
  std::uint64_t regions;
  std::uint64_t region_count;
  std::uint64_t max_pages;
  std::uint64_t category_inverted;
  std::uint64_t category_mask;
  std::uint64_t category_anyof_mask;
  std::uint64_t return_mask;
};
static_assert(sizeof(PagemapScan) == 96);
constexpr unsigned long kPagemapScan = _IOWR('f', 16, PagemapScan);
constexpr std::uint64_t kIsFile = 1U << 2;
constexpr std::uint64_t kIsPresent = 1U << 3;
constexpr std::uint64_t kIsSwapped = 1U << 4;
constexpr std::uint64_t kIsGuard = 1U << 8;

// 1 or 0: whether a page matches; negative: the error.
int any_page(int pagemap, PagemapScan scan) {
  PageRegion region{};
  scan.size = sizeof scan;
  scan.regions = reinterpret_cast<std::uintptr_t>(&region);
  scan.region_count = 1;
  scan.max_pages = 1;
  const int count = ::ioctl(pagemap, kPagemapScan, &scan);
  return count < 0 ? -errno : (count > 0 ? 1 : 0);
}

Result<bool> has_private_entries(int pagemap, std::uint64_t start, std::uint64_t end) {
  constexpr std::uint64_t kEntryPresent = std::uint64_t{1} << 63;
  constexpr std::uint64_t kEntrySwapped = std::uint64_t{1} << 62;
  constexpr std::uint64_t kEntryFile = std::uint64_t{1} << 61;
  std::array<std::uint64_t, 512> entries{};
  for (std::uint64_t page = start / kPageBytes; page < end / kPageBytes;) {
    const std::size_t count = std::min<std::size_t>(entries.size(), end / kPageBytes - page);
    const ssize_t read = ::pread(pagemap, entries.data(), count * sizeof entries[0],
                                 static_cast<off_t>(page * sizeof entries[0]));
    if (read <= 0) {
      return fail(system_error("read", "pagemap"));
    }
    const std::size_t got = static_cast<std::size_t>(read) / sizeof entries[0];
    for (std::size_t i = 0; i < got; ++i) {
      if ((entries[i] & (kEntryPresent | kEntrySwapped)) != 0 && (entries[i] & kEntryFile) == 0) {
        return true;
      }
    }
    page += got;
  }
  return false;
}

}  // namespace

Result<bool> has_private_pages(int pagemap, std::uint64_t start, std::uint64_t end) {
  PagemapScan scan{};
  scan.start = start;
  scan.end = end;
  scan.category_inverted = kIsFile;
  scan.category_mask = kIsFile;
  scan.category_anyof_mask = kIsPresent | kIsSwapped;
  scan.return_mask = kIsPresent | kIsSwapped;
  const int found = any_page(pagemap, scan);
  if (found == -ENOTTY || found == -EINVAL) {
    return has_private_entries(pagemap, start, end);
  }
  if (found < 0) {
    return fail(system_error_from(-found, "scan", "pagemap"));
  }
  return found == 1;
}

void ScanPiece::note(Clock::duration took) {
  constexpr std::chrono::microseconds kLong{400};
  constexpr std::chrono::microseconds kShort{100};
  constexpr std::uint64_t kLeast = std::uint64_t{2} << 20U;
  constexpr std::uint64_t kMost = std::uint64_t{1} << 40U;
  if (took > kLong) {
    bytes_ = std::max(bytes_ / 2, kLeast);
  } else if (took < kShort) {
    bytes_ = std::min(bytes_ * 2, kMost);
  }
}

Result<std::vector<PageRange>> guard_regions(int pagemap, std::uint64_t start, std::uint64_t end) {
  std::array<PageRegion, 64> found{};
  std::vector<PageRange> guards;
  PagemapScan scan{};
  scan.size = sizeof scan;
  scan.start = start;
  scan.regions = reinterpret_cast<std::uintptr_t>(found.data());
  scan.region_count = found.size();
  scan.category_mask = kIsGuard;
  scan.return_mask = kIsGuard;
  ScanPiece piece;
  while (scan.start < end) {
    scan.end = scan.start + std::min(piece.bytes(), end - scan.start);
    const auto before = ScanPiece::Clock::now();
    const int count = ::ioctl(pagemap, kPagemapScan, &scan);
    piece.note(ScanPiece::Clock::now() - before);
    if (count < 0 && (errno == ENOTTY || errno == EINVAL)) {
      return guards;
    }
    if (count < 0) {
      return fail(system_error("scan", "pagemap"));
    }
    if (count == 0) {
      scan.start = scan.end;
      continue;
    }
    for (const PageRegion& region : std::span(found).first(static_cast<std::size_t>(count))) {
      guards.push_back(PageRange::between(region.start, region.end));
    }
    scan.start = guards.back().end();
  }
  return guards;
}

}  // namespace migrate::inspect
