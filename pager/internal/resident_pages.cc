#include "pager/internal/resident_pages.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "pager/internal/pagemap_scan.h"

namespace migrate {
namespace {

Result<PageSet> resident_entries(int pagemap, PageRange range) {
  constexpr std::uint64_t kInMemoryOrSwap = std::uint64_t{3} << 62U;
  PageSet found;
  std::vector<std::uint64_t> entries(4096);
  while (!range.empty()) {
    const std::uint64_t want = std::min<std::uint64_t>(entries.size(), range.page_count);
    const ssize_t bytes =
        ::pread(pagemap, entries.data(), want * sizeof(std::uint64_t),
                static_cast<off_t>(range.start / kPageBytes * sizeof(std::uint64_t)));
    if (bytes <= 0) {
      return fail(system_error("read pagemap"));
    }
    const std::uint64_t count = static_cast<std::uint64_t>(bytes) / sizeof(std::uint64_t);
    for (std::uint64_t i = 0; i < count; ++i) {
      if ((entries[i] & kInMemoryOrSwap) != 0) {
        append_to(found, {range.start + i * kPageBytes, 1});
      }
    }
    range = {range.start + count * kPageBytes, range.page_count - count};
  }
  return found;
}

}  // namespace

Result<PageSet> resident_pages(int pagemap, PageRange range) {
  PageSet found;
  std::vector<ScanRegion> runs(4096);
  ScanArgument argument{};
  argument.size = sizeof(argument);
  argument.start = range.start;
  argument.end = range.end();
  argument.vector = reinterpret_cast<std::uint64_t>(runs.data());
  argument.vector_length = runs.size();
  argument.category_anyof_mask = kPageIsPresent | kPageIsSwapped;
  while (argument.start < argument.end) {
    const int count = ::ioctl(pagemap, kScanRequest, &argument);
    if (count < 0 && (errno == ENOTTY || errno == EINVAL)) {
      return resident_entries(pagemap, range);
    }
    if (count < 0) {
      return fail(system_error("scan pages"));
    }
    if (count == 0) {
      break;
    }
    for (int i = 0; i < count; ++i) {
      const ScanRegion& run = runs[static_cast<std::size_t>(i)];
      append_to(found, PageRange::between(run.start, run.end));
    }
    argument.start = found.back().end();  // As ProcessPageReader.
    argument.walk_end = 0;
  }
  return found;
}

}  // namespace migrate
