#include "pager/internal/page_runs.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace migrate {
namespace {

/// True for a page of zeros; a page with content usually ends this in its first words.
bool is_zero_page(const std::byte* page) {
  std::array<std::uint64_t, 8> words;
  for (std::size_t offset = 0; offset < kPageBytes; offset += sizeof(words)) {
    std::memcpy(words.data(), page + offset, sizeof(words));
    std::uint64_t any = 0;
    for (const std::uint64_t word : words) {
      any |= word;
    }
    if (any != 0) {
      return false;
    }
  }
  return true;
}

}  // namespace

void append_page(std::vector<PushRun>& runs, std::uint64_t address, PageKind kind) {
  if (!runs.empty() && runs.back().kind == kind && runs.back().range().end() == address) {
    ++runs.back().page_count;
  } else {
    runs.push_back({address, 1, kind});
  }
}

std::uint64_t count_pages(const std::vector<PushRun>& runs, PageKind kind) {
  std::uint64_t count = 0;
  for (const PushRun& run : runs) {
    count += run.kind == kind ? run.page_count : 0;
  }
  return count;
}

Result<void> read_runs(PageReader& reader, std::span<const PageRange> ranges,
                       std::span<std::byte> buffer, std::vector<PushRun>& runs) {
  runs.clear();
  std::array<PageRange, kMaxPushRuns> left;
  std::size_t left_count = ranges.size();
  std::copy(ranges.begin(), ranges.end(), left.begin());
  std::size_t first = 0;
  std::size_t kept_bytes = 0;  // content kept at the front of the buffer
  while (first < left_count) {
    std::uint64_t want = 0;
    for (std::size_t i = first; i < left_count; ++i) {
      want += left[i].page_count;
    }
    std::byte* const base = buffer.data() + kept_bytes;
    const std::uint64_t got = MIGRATE_TRY(
        reader.read(std::span(left).subspan(first, left_count - first), {base, want * kPageBytes}));
    for (std::uint64_t i = 0; i < got; ++i) {
      const std::byte* const page = base + i * kPageBytes;
      const bool zero = is_zero_page(page);
      append_page(runs, left[first].start, zero ? PageKind::kZero : PageKind::kData);
      if (!zero) {
        if (buffer.data() + kept_bytes != page) {
          std::memmove(buffer.data() + kept_bytes, page, kPageBytes);
        }
        kept_bytes += kPageBytes;
      }
      left[first] = PageRange::between(left[first].start + kPageBytes, left[first].end());
      first += left[first].empty() ? 1 : 0;
    }
    if (got < want) {
      append_page(runs, left[first].start, PageKind::kError);
      left[first] = PageRange::between(left[first].start + kPageBytes, left[first].end());
      first += left[first].empty() ? 1 : 0;
    }
  }
  return {};
}

}  // namespace migrate
