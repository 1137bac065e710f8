#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "base/result.h"
#include "libmigrate/proto/image.pb.h"

namespace migrate::carriers {

/// Where a file has data, in its order: offset and length in bytes. What is between was never
/// written, and reads as zeros.
using Extents = std::vector<std::pair<std::uint64_t, std::uint64_t>>;

/// More in all is refused: their bytes travel inside the freeze.
inline constexpr std::uint64_t kMaxMemoryFileBytes = std::uint64_t{64} << 20U;

/// The data of the first `size` bytes of a file; not all of it where that is more than
/// kMaxMemoryFileBytes. `fd` must be an open file of its own, whose position changes. Where the
/// file system does not tell, all is data. Errors: kSystem.
Result<Extents> data_of(int fd, std::uint64_t size);

std::uint64_t bytes_in(const Extents& extents);

/// Reads the data of a file into `memory`; zeros at the end of an extent are left out. Errors:
/// kSystem, kRetry (it got shorter meanwhile).
Result<void> read_content(int fd, const Extents& extents, wire::SharedMemory& memory);

/// How much memory the content takes where it is written: of each page that it touches, all.
std::uint64_t bytes_touched(const wire::SharedMemory& memory);

/// Whether the content of a memory from elsewhere is of ascending extents within its size, which
/// touch no more than kMaxMemoryFileBytes.
bool has_sound_content(const wire::SharedMemory& memory);

/// Writes the content into a file that has none yet. It must be sound. Errors: kSystem.
Result<void> write_content(int fd, const wire::SharedMemory& memory);

}  // namespace migrate::carriers
