#include "pager/page_ledger.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <new>
#include <span>
#include <type_traits>

namespace migrate {
namespace {

constexpr std::uint64_t kMagic = 0x3130524744454c4dULL;  // "MLEDGR01"
constexpr std::uint64_t kHeaderBytes = 4096;
constexpr std::uint64_t kSlotBytes = 64ULL << 20U;  // of address space: only what is used costs
constexpr std::uint64_t kExtentsAt = kHeaderBytes + 2 * kSlotBytes;

static_assert(std::is_trivially_copyable_v<PagerRegion>);
static_assert(ledger_code(PageState::kUnknown) == 0);

std::uint64_t align(std::uint64_t bytes) {
  return (bytes + kPageBytes - 1) / kPageBytes * kPageBytes;
}

std::vector<PageRange> joined(std::vector<PageRange> ranges) {
  std::sort(ranges.begin(), ranges.end(),
            [](const PageRange& a, const PageRange& b) { return a.start < b.start; });
  std::vector<PageRange> result;
  for (const PageRange& range : ranges) {
    if (!result.empty() && result.back().end() == range.start) {
      result.back().page_count += range.page_count;
    } else {
      result.push_back(range);
    }
  }
  return result;
}

}  // namespace

struct PageLedger::Header {
  std::uint64_t magic = kMagic;
  std::uint64_t region_bytes = sizeof(PagerRegion);  // another build may have others
  std::uint64_t extent_count = 0;
  std::atomic<std::uint64_t> slot = 0;
  std::uint64_t region_count[2] = {};
  std::uint64_t expected_count[2] = {};
  std::uint64_t early_count[2] = {};
};

PageLedger::Header& PageLedger::header() const {
  return *reinterpret_cast<Header*>(memory_.bytes().data());
}

std::span<PageLedger::Extent> PageLedger::extents() const {
  auto* first = reinterpret_cast<Extent*>(memory_.bytes().data() + kExtentsAt);
  return {first, header().extent_count};
}

std::uint8_t* PageLedger::chunks(const Extent& extent) const {
  return reinterpret_cast<std::uint8_t*>(memory_.bytes().data() + extent.chunks_at);
}

std::uint8_t* PageLedger::pages(const Extent& extent) const {
  return reinterpret_cast<std::uint8_t*>(memory_.bytes().data() + extent.pages_at);
}

Result<std::unique_ptr<PageLedger>> PageLedger::create(std::vector<PageRange> sources) {
  const std::vector<PageRange> ranges = joined(std::move(sources));
  std::vector<Extent> extents;
  std::uint64_t end = align(kExtentsAt + ranges.size() * sizeof(Extent));
  for (const PageRange& range : ranges) {
    const std::uint64_t chunk_bytes =
        (range.page_count + kLedgerChunkPages - 1) / kLedgerChunkPages;
    extents.push_back({range.start / kPageBytes, range.page_count, end, end + chunk_bytes});
    end += chunk_bytes + range.page_count;
  }
  UniqueFd fd(::memfd_create("migrate-ledger", MFD_CLOEXEC));
  if (!fd.valid() || ::ftruncate(fd.get(), static_cast<off_t>(align(end))) != 0) {
    return fail(system_error("make a page ledger", std::to_string(end) + " bytes"));
  }
  Mapping memory = MIGRATE_TRY(Mapping::of_file(fd.get(), end));
  auto& header = *new (memory.bytes().data()) Header;
  header.extent_count = extents.size();
  std::copy(extents.begin(), extents.end(),
            reinterpret_cast<Extent*>(memory.bytes().data() + kExtentsAt));
  return std::unique_ptr<PageLedger>(new PageLedger(std::move(fd), std::move(memory)));
}

Result<std::unique_ptr<PageLedger>> PageLedger::open(UniqueFd fd) {
  struct stat status {};
  if (::fstat(fd.get(), &status) != 0) {
    return fail(system_error("open a page ledger"));
  }
  const auto length = static_cast<std::uint64_t>(status.st_size);
  if (length < kExtentsAt) {
    return fail(make_error(ErrorCode::kCorrupt, "open a page ledger"));
  }
  Mapping memory = MIGRATE_TRY(Mapping::of_file(fd.get(), length));
  std::unique_ptr<PageLedger> ledger(new PageLedger(std::move(fd), std::move(memory)));
  const Header& header = ledger->header();
  if (header.magic != kMagic || header.region_bytes != sizeof(PagerRegion)) {
    return fail(make_error(ErrorCode::kCorrupt, "open a page ledger", "of another version",
                           "take over processes with the version of migrated that moved them"));
  }
  return ledger;
}

void PageLedger::set(PageRange source, PageState state) {
  const std::uint64_t first = source.start / kPageBytes;
  const std::uint64_t end = first + source.page_count;
  const auto all = extents();
  auto extent = std::partition_point(all.begin(), all.end(), [&](const Extent& each) {
    return each.first_page + each.page_count <= first;
  });
  for (; extent != all.end() && extent->first_page < end; ++extent) {
    const std::uint64_t from = std::max(first, extent->first_page);
    const std::uint64_t to = std::min(end, extent->first_page + extent->page_count);
    set_in(*extent, from - extent->first_page, to - from, ledger_code(state));
  }
}

void PageLedger::set_in(const Extent& extent, std::uint64_t first, std::uint64_t count,
                        std::uint8_t code) {
  std::uint8_t* const chunk_codes = chunks(extent);
  std::uint8_t* const page_codes = pages(extent);
  while (count > 0) {
    const std::uint64_t chunk = first / kLedgerChunkPages;
    const std::uint64_t chunk_first = chunk * kLedgerChunkPages;
    const std::uint64_t chunk_count = std::min(kLedgerChunkPages, extent.page_count - chunk_first);
    const std::uint64_t part = std::min(count, chunk_first + chunk_count - first);
    if (part == chunk_count) {
      chunk_codes[chunk] = code;
    } else if (chunk_codes[chunk] != code) {
      if (chunk_codes[chunk] != kMixedChunk) {
        std::memset(page_codes + chunk_first, chunk_codes[chunk], chunk_count);
        // Whoever finds the mark must find the pages.
        std::atomic_ref<std::uint8_t>(chunk_codes[chunk]).store(kMixedChunk);
      }
      std::memset(page_codes + first, code, part);
    }
    first += part;
    count -= part;
  }
}

Result<void> PageLedger::save(const Regions& regions) {
  const std::uint64_t region_bytes = regions.regions.size() * sizeof(PagerRegion);
  const std::uint64_t expected_bytes = regions.expected.size() * sizeof(PageRange);
  const std::uint64_t early_bytes = regions.early.size() * sizeof(Remap);
  if (region_bytes + expected_bytes + early_bytes > kSlotBytes) {
    return fail(make_error(ErrorCode::kInvalid, "note the regions of a process",
                           std::to_string(regions.regions.size()) + " regions"));
  }
  Header& words = header();
  const std::uint64_t other = 1 - words.slot;
  std::byte* const place = memory_.bytes().data() + kHeaderBytes + other * kSlotBytes;
  std::byte* end = std::ranges::copy(std::as_bytes(std::span(regions.regions)), place).out;
  end = std::ranges::copy(std::as_bytes(std::span(regions.expected)), end).out;
  std::ranges::copy(std::as_bytes(std::span(regions.early)), end);
  words.region_count[other] = regions.regions.size();
  words.expected_count[other] = regions.expected.size();
  words.early_count[other] = regions.early.size();
  words.slot = other;
  return {};
}

Result<PageLedger::Regions> PageLedger::regions() const {
  const Header& words = header();
  const std::uint64_t slot = words.slot % 2;
  const std::byte* place = memory_.bytes().data() + kHeaderBytes + slot * kSlotBytes;
  Regions found;
  found.regions.resize(words.region_count[slot]);
  found.expected.resize(words.expected_count[slot]);
  found.early.resize(words.early_count[slot]);
  const auto take = [&place](std::span<std::byte> part) {
    place = std::ranges::copy_n(place, static_cast<std::ptrdiff_t>(part.size()), part.begin()).in;
  };
  take(std::as_writable_bytes(std::span(found.regions)));
  take(std::as_writable_bytes(std::span(found.expected)));
  take(std::as_writable_bytes(std::span(found.early)));
  return found;
}

}  // namespace migrate
