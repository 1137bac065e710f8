#include "pager/write_tracker.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/file.h"
#include "base/mapping.h"
#include "pager/internal/pagemap_scan.h"

namespace migrate {
namespace {

constexpr std::uint64_t kAsyncProtection = std::uint64_t{1} << 15U;  // UFFD_FEATURE_WP_ASYNC
constexpr long kUserModeOnly = 1;                                    // UFFD_USER_MODE_ONLY

Error unsupported(const char* what) {
  return make_error(ErrorCode::kUnsupported, "follow what a process writes", {},
                    std::string(what) + " (Linux 6.7)");
}

Result<void> shake_hands(int userfault) {
  uffdio_api api{};
  api.api = UFFD_API;
  api.features = kAsyncProtection;
  if (::ioctl(userfault, UFFDIO_API, &api) != 0) {
    return fail(unsupported("this kernel has no asynchronous write protection"));
  }
  return {};
}

bool is_watchable(const ServedRegion& region) {
  return region.kind != RegionKind::kSharedMemory && !region.is_all_data;
}

}  // namespace

Result<void> WriteTracker::check_support() {
  const UniqueFd userfault(
      static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | kUserModeOnly)));
  if (!userfault.valid()) {
    return fail(unsupported("this kernel has no userfaultfd for user mode"));
  }
  MIGRATE_TRY(shake_hands(userfault.get()));
  const UniqueFd pagemap = MIGRATE_TRY(open_file("/proc/self/pagemap", O_RDONLY | O_CLOEXEC));
  const Mapping memory = MIGRATE_TRY(Mapping::create(kPageBytes));
  ScanRegion found{};
  ScanArgument argument{};
  argument.size = sizeof(argument);
  argument.flags = kScanProtects;
  argument.start = reinterpret_cast<std::uint64_t>(memory.bytes().data());
  argument.end = argument.start + kPageBytes;
  argument.vector = reinterpret_cast<std::uint64_t>(&found);
  argument.vector_length = 1;
  argument.category_mask = kPageIsWritten;
  if (::ioctl(pagemap.get(), kScanRequest, &argument) < 0) {
    return fail(unsupported("this kernel does not tell which pages were written (PAGEMAP_SCAN)"));
  }
  return {};
}

WriteTracker::WriteTracker(UniqueFd userfault, UniqueFd pagemap)
    : userfault_(std::move(userfault)), pagemap_(std::move(pagemap)), shows_guards_(kPageIsGuard) {}

Result<WriteTracker> WriteTracker::create(UniqueFd userfault, UniqueFd pagemap) {
  MIGRATE_TRY(shake_hands(userfault.get()));
  return WriteTracker(std::move(userfault), std::move(pagemap));
}

void WriteTracker::watch(const std::vector<ServedRegion>& regions) {
  for (const ServedRegion& region : regions) {
    uffdio_register argument{};
    argument.range.start = region.range.start;
    argument.range.len = region.range.bytes();
    argument.mode = UFFDIO_REGISTER_MODE_WP;
    if (is_watchable(region) && ::ioctl(userfault_.get(), UFFDIO_REGISTER, &argument) == 0) {
      watched_.push_back(region);
    }
  }
  std::sort(watched_.begin(), watched_.end(), [](const ServedRegion& a, const ServedRegion& b) {
    return a.range.start < b.range.start;
  });
}

Result<PageSet> WriteTracker::take_written() {
  return scan(true);
}

Result<PageSet> WriteTracker::unwritten() {
  return scan(false);
}

Result<PageSet> WriteTracker::scan(bool written) {
  PageSet found;
  for (const ServedRegion& region : watched_) {
    MIGRATE_TRY(scan_region(region, written, found));
  }
  return found;
}

Result<void> WriteTracker::scan_region(const ServedRegion& region, bool written, PageSet& found) {
  const bool is_copy = region.kind == RegionKind::kFileCopy;
  std::vector<ScanRegion> runs(4096);
  ScanArgument argument{};
  argument.size = sizeof(argument);
  argument.flags = written ? kScanProtects : 0;
  argument.start = region.range.start;
  argument.end = region.range.end();
  argument.vector = reinterpret_cast<std::uint64_t>(runs.data());
  argument.vector_length = runs.size();
  argument.category_mask = kPageIsTracked | kPageIsWritten;
  argument.category_inverted = written ? 0 : kPageIsWritten;
  // As ProcessPageReader: the destination has the file, zeros and guards.
  argument.category_mask |= (is_copy ? kPageIsFile : kPageIsZero) | shows_guards_;
  argument.category_inverted |= (is_copy ? kPageIsFile : kPageIsZero) | shows_guards_;
  // Where a page of a file was given back (MADV_DONTNEED), the kernel leaves a marker that looks
  // like an unwritten page in swap.
  argument.category_anyof_mask = kPageIsPresent | (is_copy && !written ? 0 : kPageIsSwapped);
  while (argument.start < argument.end) {
    const int count = ::ioctl(pagemap_.get(), kScanRequest, &argument);
    if (count < 0 && errno == EINVAL && shows_guards_ != 0) {
      argument.category_inverted &= ~shows_guards_;
      argument.category_mask &= ~shows_guards_;
      shows_guards_ = 0;
      continue;
    }
    if (count < 0) {
      return fail(system_error("scan for written pages"));
    }
    for (int i = 0; i < count; ++i) {
      const ScanRegion& run = runs[static_cast<std::size_t>(i)];
      append_to(found, PageRange::between(run.start, run.end));
    }
    if (count == 0) {
      return {};
    }
    argument.start = runs[static_cast<std::size_t>(count) - 1].end;  // As ProcessPageReader.
    argument.walk_end = 0;
  }
  return {};
}

}  // namespace migrate
