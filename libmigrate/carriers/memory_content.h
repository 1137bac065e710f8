#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "libmigrate/proto/image.pb.h"

namespace migrate::carriers {

/// Where a file has data, in its order: offset and length in bytes. What is between was never
/// written, and reads as zeros.
using Extents = std::vector<std::pair<std::uint64_t, std::uint64_t>>;

/// A file whose data is in more pieces is refused: the image lists them.
inline constexpr std::size_t kMaxExtents = std::size_t{1} << 16U;

/// The data of the first `size` bytes of a file; not all of it where that is in more than
/// kMaxExtents pieces, but one piece more than these. `fd` must be an open file of its own, whose
/// position changes. Where the file system does not tell, all is data. Errors: kSystem.
Result<Extents> data_of(int fd, std::uint64_t size);

std::uint64_t bytes_in(const Extents& extents);

void set_extents(const Extents& extents, wire::SharedMemory& memory);

/// How much memory the content takes where it is written: of each page that it touches, all.
std::uint64_t bytes_touched(const wire::SharedMemory& memory);

/// Whether the extents of a memory from elsewhere ascend, lie within its size, and are not too
/// many.
bool has_sound_extents(const wire::SharedMemory& memory);

/// The content of the memories of an image, one after the other, each as its extents say. It
/// follows the image in pieces, and is never in memory as a whole. `objects` is borrowed.
class ContentPlace {
 public:
  explicit ContentPlace(const wire::Objects& objects) : objects_(objects) { settle(); }

  bool at_end() const { return memory_ >= objects_.shared_memories_size(); }
  /// Unless at_end(): where the next bytes belong, and how many of them are there in one extent.
  std::uint64_t memory() const { return static_cast<std::uint64_t>(memory_); }
  std::uint64_t offset() const { return extent(0) + done_; }
  std::uint64_t left() const { return extent(1) - done_; }
  /// At most left().
  void advance(std::uint64_t bytes);

 private:
  std::uint64_t extent(int number) const;
  void settle();

  const wire::Objects& objects_;
  int memory_ = 0;
  int extent_ = 0;  // index of its offset
  std::uint64_t done_ = 0;
};

/// Open files with the content of memories, by index into Objects.shared_memories.
using ContentFiles = std::map<std::uint64_t, UniqueFd>;

/// The next bytes, as many as a message takes; none at the end. Errors: kSystem, kRetry (a file got
/// shorter meanwhile).
Result<std::string> read_content(ContentPlace& place, const ContentFiles& files);

/// Writes the next bytes into the files of the memories. Errors: kCorrupt (there are more than the
/// extents have), kSystem.
Result<void> write_content(ContentPlace& place, std::span<const UniqueFd> memories,
                           std::string_view bytes);

}  // namespace migrate::carriers
