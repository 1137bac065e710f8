#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/mapping.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "pager/internal/state_table.h"
#include "pager/page_range.h"
#include "pager/region.h"

namespace migrate {

/// A copy of a page map in shared memory, kept up to date change by change, so that a new pager can
/// go on when the old one's process was killed: what the page tables alone do not tell is which
/// absent pages the process itself has given back, and where moved mappings came from.
///
/// The file (a memfd) holds, for each range of source pages, one byte for each 512 pages and, where
/// those differ, one for each page; and the list of regions twice, one of which counts. Memory that
/// was never written costs nothing, so huge reservations are cheap. Changes of one state are in
/// place as soon as set() returns. kRequested is noted as kUnknown: a new pager asks again.
/// Owned by its page map's lock.
class PageLedger {
 public:
  struct Remap {
    PageRange from;
    std::uint64_t to = 0;
  };
  /// What is noted besides the states.
  struct Regions {
    std::vector<PagerRegion> regions;
    std::vector<PageRange> expected;  ///< See EventOrder.
    std::vector<Remap> early;
  };

  /// For these source pages, all kUnknown, and nothing else ever. `sources` are apart from each
  /// other, in any order. Errors: kSystem.
  static Result<std::unique_ptr<PageLedger>> create(std::vector<PageRange> sources);
  /// The ledger that another process made. Errors: kCorrupt, kSystem.
  static Result<std::unique_ptr<PageLedger>> open(UniqueFd fd);

  /// Notes the state of source pages; those outside the ranges are ignored (they are kPresent).
  void set(PageRange source, PageState state);
  /// Replaces the regions. Errors: kInvalid (more than a million of them).
  Result<void> save(const Regions& regions);

  Result<Regions> regions() const;
  /// Calls note(range, state) for all pages of the ranges, run by run.
  template <class Note>
  void for_each(Note note) const;

  /// Borrowed; whoever keeps a duplicate can open() it.
  int fd() const { return fd_.get(); }

 private:
  struct Extent;
  struct Header;

  PageLedger(UniqueFd fd, Mapping memory) : fd_(std::move(fd)), memory_(std::move(memory)) {}
  Header& header() const;
  std::span<Extent> extents() const;
  void set_in(const Extent& extent, std::uint64_t first, std::uint64_t count, std::uint8_t code);
  std::uint8_t* chunks(const Extent& extent) const;
  std::uint8_t* pages(const Extent& extent) const;

  UniqueFd fd_;
  Mapping memory_;
};

/// One range of source pages and where its bytes are in the file.
struct PageLedger::Extent {
  std::uint64_t first_page;
  std::uint64_t page_count;
  std::uint64_t chunks_at;
  std::uint64_t pages_at;
};

/// A byte of a ledger: 0 is kUnknown, so that fresh memory needs no writing.
inline constexpr std::uint8_t kMixedChunk = 0xff;
inline constexpr std::uint64_t kLedgerChunkPages = 512;
constexpr std::uint8_t ledger_code(PageState state) {
  return state == PageState::kRequested ? 0 : static_cast<std::uint8_t>(state) ^ 1U;
}
constexpr PageState ledger_state(std::uint8_t code) {
  return static_cast<PageState>(code ^ 1U);
}

template <class Note>
void PageLedger::for_each(Note note) const {
  for (const Extent& extent : extents()) {
    for (std::uint64_t page = 0; page < extent.page_count;) {
      const std::uint8_t* const codes = chunks(extent);
      const std::uint64_t last = (extent.page_count - 1) / kLedgerChunkPages;
      std::uint64_t chunk = page / kLedgerChunkPages;
      std::uint8_t code = codes[chunk];
      const bool mixed = code == kMixedChunk;
      while (!mixed && chunk < last && codes[chunk + 1] == code) {
        ++chunk;
      }
      const std::uint64_t limit = std::min(extent.page_count, (chunk + 1) * kLedgerChunkPages);
      std::uint64_t end = limit;
      if (mixed) {
        code = pages(extent)[page];
        for (end = page + 1; end < limit && pages(extent)[end] == code;) {
          ++end;
        }
      }
      note(PageRange{(extent.first_page + page) * kPageBytes, end - page}, ledger_state(code));
      page = end;
    }
  }
}

}  // namespace migrate
