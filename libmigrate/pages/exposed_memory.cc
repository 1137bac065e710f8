#include "libmigrate/pages/exposed_memory.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>

#include "base/log.h"
#include "base/unique_fd.h"

namespace migrate {
namespace {

// Pinned at a time.
constexpr std::uint64_t kLongestPiece = std::uint64_t{1} << 30U;

/// What exists of an object between two offsets, in bytes: [start, end) pieces of whole pages.
std::vector<PageRange> pieces_of(int fd, std::uint64_t start, std::uint64_t end) {
  std::vector<PageRange> pieces;
  while (start < end) {
    const off_t data = ::lseek(fd, static_cast<off_t>(start), SEEK_DATA);
    if (data < 0 || static_cast<std::uint64_t>(data) >= end) {
      break;
    }
    const off_t hole = ::lseek(fd, data, SEEK_HOLE);
    const auto piece_end = std::min({hole < 0 ? end : static_cast<std::uint64_t>(hole), end,
                                     static_cast<std::uint64_t>(data) + kLongestPiece});
    pieces.push_back(PageRange::between(static_cast<std::uint64_t>(data), piece_end));
    start = piece_end;
  }
  return pieces;
}

Result<void> expose_region(pid_t process, const ServedRegion& region, OneSidedChannel& connection,
                           const std::atomic<bool>& ends, std::vector<ReadableWindow>& windows) {
  const std::string path =
      fmt::format("/proc/{}/map_files/{:x}-{:x}", process, region.range.start, region.range.end());
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.valid()) {
    return fail(system_error("open", path));
  }
  const std::uint64_t first = region.object_offset;
  for (const PageRange& piece : pieces_of(file.get(), first, first + region.range.bytes())) {
    if (windows.size() == kMaxWindows || ends) {
      return {};
    }
    Mapping view = MIGRATE_TRY(Mapping::view_of_file(file.get(), piece.start, piece.bytes()));
    const ExposedPlace place = MIGRATE_TRY(connection.expose(std::move(view)));
    windows.push_back({{region.range.start + (piece.start - first), piece.page_count}, place});
  }
  return {};
}

}  // namespace

std::vector<ReadableWindow> expose_shared_memory(pid_t process,
                                                 const std::vector<ServedRegion>& regions,
                                                 OneSidedChannel& connection,
                                                 const std::atomic<bool>& ends) {
  std::vector<ReadableWindow> windows;
  for (const ServedRegion& region : regions) {
    if (region.kind != RegionKind::kSharedMemory) {
      continue;
    }
    if (auto exposed = expose_region(process, region, connection, ends, windows); !exposed) {
      log::info("process {}: shared memory is not read by the destination itself: {}", process,
                exposed.error().message());
      break;
    }
  }
  return windows;
}

}  // namespace migrate
