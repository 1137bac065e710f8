#include "libmigrate/advisor/memory_sample.h"

#include <algorithm>
#include <array>
#include <functional>
#include <optional>
#include <random>
#include <span>
#include <string_view>
#include <utility>

#include "pager/page_range.h"
#include "pager/page_set.h"

namespace migrate {
namespace {

// The kernel holds the lock of the address space for as long as it scans a piece.
constexpr std::uint64_t kScanBytes = std::uint64_t{64} << 20U;
constexpr std::uint64_t kMostScans = 4096;

/// What a page had; nothing: it could not be read then.
using Digest = std::optional<std::size_t>;

Result<void> scan_in_pieces(PageReader& reader, const ServedRegion& region,
                            std::vector<PageRange>& present) {
  const std::uint64_t piece =
      region.kind == RegionKind::kSharedMemory  // It is known as a whole, without a scan.
          ? region.range.bytes()
          : std::max(kScanBytes, region.range.bytes() / kMostScans / kPageBytes * kPageBytes);
  for (std::uint64_t at = region.range.start; at < region.range.end(); at += piece) {
    ServedRegion part = region;
    part.range = PageRange::between(at, std::min(at + piece, region.range.end()));
    MIGRATE_TRY(reader.scan(part, present));
  }
  return {};
}

/// `count` pages out of `ranges`, one from each of as many equal parts.
std::vector<std::uint64_t> pick_pages(const std::vector<PageRange>& ranges, std::uint64_t total,
                                      std::size_t count) {
  std::minstd_rand random(1);  // NOLINT(cert-msc32-c,cert-msc51-cpp): any numbers will do.
  std::vector<std::uint64_t> picked;
  std::uint64_t before = 0;  // pages of the ranges before this one
  auto range = ranges.begin();
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::uint64_t from = total * i / count;
    const std::uint64_t until = std::max(total * (i + 1) / count, from + 1);
    const std::uint64_t place = from + random() % (until - from);
    while (place - before >= range->page_count) {
      before += range->page_count;
      ++range;
    }
    picked.push_back(range->start + (place - before) * kPageBytes);
  }
  return picked;
}

Result<std::vector<Digest>> read_digests(PageReader& reader,
                                         const std::vector<std::uint64_t>& pages) {
  std::vector<Digest> digests;
  digests.reserve(pages.size());
  std::array<std::byte, kPageBytes> bytes{};
  for (const std::uint64_t page : pages) {
    const PageRange range{page, 1};
    const bool is_read = MIGRATE_TRY(reader.read(std::span(&range, 1), bytes)) == 1;
    const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    digests.push_back(is_read ? Digest(std::hash<std::string_view>()(text)) : Digest());
  }
  return digests;
}

/// Looks at the pages until the time is over: each point is of those that were seen to be written
/// until then.
Result<WriteCurve> watch(PageReader& reader, const std::vector<std::uint64_t>& pages,
                         const SampleOptions& options) {
  constexpr std::array kParts{1, 7, 8};  // of sixteen: soon after, in the middle, at the end
  WriteCurve curve;
  std::vector<bool> written(pages.size());
  const std::int64_t start_us = options.clock();
  auto before = MIGRATE_TRY(read_digests(reader, pages));
  for (const int part : kParts) {
    MIGRATE_TRY(options.wait(options.time * part / 16));
    const std::int64_t at_us = options.clock();
    auto now = MIGRATE_TRY(read_digests(reader, pages));
    for (std::size_t i = 0; i < pages.size(); ++i) {
      written[i] = written[i] || now[i] != before[i];
    }
    before = std::move(now);
    const auto count = std::count(written.begin(), written.end(), true);
    curve.seen.push_back({.us = std::max(static_cast<double>(at_us - start_us), 1.0),
                          .share = static_cast<double>(count) / static_cast<double>(pages.size())});
  }
  return curve;
}

}  // namespace

Result<MemoryFacts> sample_memory(PageReader& reader, const std::vector<ServedRegion>& regions,
                                  const SampleOptions& options) {
  std::vector<PageRange> present;
  MemoryFacts facts;
  std::uint64_t of_files = 0;  // that the destination has not: unwritten, and too many to be read
  for (const ServedRegion& region : regions) {
    if (region.is_all_data) {
      of_files += region.range.page_count;
    } else {
      MIGRATE_TRY(scan_in_pieces(reader, region, present));
    }
  }
  std::uint64_t total = 0;
  for (const PageRange& range : present) {
    total += range.page_count;
  }
  facts.pages = total + of_files;
  if (options.time.count() <= 0 || total == 0) {
    return facts;
  }
  const auto picked = pick_pages(present, total, std::min<std::uint64_t>(options.pages, total));
  facts.writes = MIGRATE_TRY(watch(reader, picked, options));
  for (WriteCurve::Point& point : facts.writes.seen) {
    point.share *= static_cast<double>(total) / static_cast<double>(facts.pages);
  }
  return facts;
}

}  // namespace migrate
