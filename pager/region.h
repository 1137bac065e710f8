#pragma once

#include <cstdint>

#include "pager/page_range.h"

namespace migrate {

/// What a page that the source does not have contains.
enum class RegionKind : std::uint8_t {
  kAnonymous,     ///< Private anonymous memory: zero.
  kFileCopy,      ///< A private copy of a file: the destination's own file tells.
  kSharedMemory,  ///< Shared anonymous memory or memfd: zero.
};

/// One mapping of the destination process that the pager fills.
struct PagerRegion {
  PageRange destination;             ///< Where it is mapped, in the destination process.
  std::uint64_t source_address = 0;  ///< Where its first page is in the source process.
  RegionKind kind = RegionKind::kAnonymous;
  std::uint32_t local_file = 0;   ///< kFileCopy: index into the pager's local files.
  std::uint64_t file_offset = 0;  ///< kFileCopy: of the first page, in bytes.
  /// MADV_WIPEONFORK, MADV_DONTFORK: a forked child finds zeros or nothing here.
  bool withheld_from_child = false;

  friend bool operator==(const PagerRegion&, const PagerRegion&) = default;
};

/// How pages of a range come, whatever the mode says.
enum class PushWay : std::uint8_t {
  kFirst,      ///< Pushed before all others, and where nothing else is pushed, too.
  kHot,        ///< Pushed after those and before all others, if anything else is pushed.
  kOnRequest,  ///< Not pushed while not all is (PageServer::start_push()).
  kNever,      ///< Of anonymous memory: zeros, whatever the source has.
};
struct PushedRange {
  PageRange range;
  PushWay way = PushWay::kFirst;
};

/// One mapping of the source process that the page server serves.
struct ServedRegion {
  PageRange range;
  RegionKind kind = RegionKind::kAnonymous;
  std::uint64_t object_offset = 0;  ///< kSharedMemory: of the first page in its object, in bytes.
  /// Every page is to be read: those that the source's page tables lack are those of a file that
  /// the destination does not have.
  bool is_all_data = false;
};

}  // namespace migrate
