#include "libmigrate/carriers/memory_content.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <numeric>
#include <string>

#include "base/page_size.h"

namespace migrate::carriers {
namespace {

constexpr int kNumbersOfExtent = 2;  // Offset and length.
constexpr std::uint64_t kPieceBytes = std::uint64_t{1} << 20U;

}  // namespace

Result<Extents> data_of(int fd, std::uint64_t size) {
  Extents extents;
  // The program may write ahead of us, for ever.
  for (std::uint64_t at = 0; at < size && extents.size() <= kMaxExtents;) {
    const off_t start = ::lseek(fd, static_cast<off_t>(at), SEEK_DATA);
    if (start < 0 && errno == ENXIO) {
      break;  // Nothing more.
    }
    if (start < 0 && errno == EINVAL) {
      return Extents{{0, size}};
    }
    const off_t end = start < 0 ? start : ::lseek(fd, start, SEEK_HOLE);
    if (end < 0) {
      return fail(system_error("look for the data of a file"));
    }
    const auto from = static_cast<std::uint64_t>(start);
    const std::uint64_t to = std::min(static_cast<std::uint64_t>(end), size);
    if (from >= to) {
      break;
    }
    if (from < at) {
      return fail(make_error(ErrorCode::kCorrupt, "look for the data of a file", {},
                             "its file system tells of data before where it was asked for"));
    }
    extents.emplace_back(from, to - from);
    at = to;
  }
  return extents;
}

std::uint64_t bytes_in(const Extents& extents) {
  return std::accumulate(extents.begin(), extents.end(), std::uint64_t{0},
                         [](std::uint64_t sum, const auto& extent) { return sum + extent.second; });
}

void set_extents(const Extents& extents, wire::SharedMemory& memory) {
  memory.clear_extents();
  memory.mutable_extents()->Reserve(static_cast<int>(extents.size()) * kNumbersOfExtent);
  for (const auto& [offset, length] : extents) {
    memory.add_extents(offset);
    memory.add_extents(length);
  }
}

std::uint64_t bytes_touched(const wire::SharedMemory& memory) {
  std::uint64_t pages = 0;
  for (int i = 0; i + 1 < memory.extents_size(); i += kNumbersOfExtent) {
    const std::uint64_t last = memory.extents(i) + memory.extents(i + 1) - 1;
    pages += last / kPageBytes - memory.extents(i) / kPageBytes + 1;
  }
  return pages * kPageBytes;
}

bool has_sound_extents(const wire::SharedMemory& memory) {
  const auto& numbers = memory.extents();
  if (numbers.size() % kNumbersOfExtent != 0 ||
      static_cast<std::size_t>(numbers.size()) > kMaxExtents * kNumbersOfExtent) {
    return false;
  }
  std::uint64_t end = 0;
  for (int i = 0; i < numbers.size(); i += kNumbersOfExtent) {
    const std::uint64_t offset = numbers[i];
    const std::uint64_t length = numbers[i + 1];
    if (length == 0 || offset < end || offset > memory.size_bytes() ||
        length > memory.size_bytes() - offset) {
      return false;
    }
    end = offset + length;
  }
  return true;
}

std::uint64_t ContentPlace::extent(int number) const {
  return objects_.shared_memories(memory_).extents(extent_ + number);
}

void ContentPlace::advance(std::uint64_t bytes) {
  done_ += bytes;
  if (done_ == extent(1)) {
    extent_ += kNumbersOfExtent;
    done_ = 0;
    settle();
  }
}

// The first memory that has something left.
void ContentPlace::settle() {
  while (!at_end() && extent_ >= objects_.shared_memories(memory_).extents_size()) {
    ++memory_;
    extent_ = 0;
  }
}

Result<std::string> read_content(ContentPlace& place, const ContentFiles& files) {
  std::string piece;
  while (!place.at_end() && piece.size() < kPieceBytes) {
    const auto file = files.find(place.memory());
    if (file == files.end()) {
      return fail(make_error(ErrorCode::kInvalid, "read a memory file", "it is not open"));
    }
    const std::size_t before = piece.size();
    piece.resize(before + std::min(place.left(), kPieceBytes - before));
    const ssize_t count = ::pread(file->second.get(), piece.data() + before, piece.size() - before,
                                  static_cast<off_t>(place.offset()));
    if (count <= 0) {
      return fail(count < 0 ? system_error("read a memory file")
                            : make_error(ErrorCode::kRetry, "read a memory file", {},
                                         "it got shorter meanwhile"));
    }
    piece.resize(before + static_cast<std::size_t>(count));
    place.advance(static_cast<std::uint64_t>(count));
  }
  return piece;
}

Result<void> write_content(ContentPlace& place, std::span<const UniqueFd> memories,
                           std::string_view bytes) {
  while (!bytes.empty()) {
    if (place.at_end() || place.memory() >= memories.size()) {
      return fail(make_error(ErrorCode::kCorrupt, "write a memory file", {},
                             "there is more than its image tells of"));
    }
    const ssize_t count = ::pwrite(memories[place.memory()].get(), bytes.data(),
                                   std::min(place.left(), std::uint64_t{bytes.size()}),
                                   static_cast<off_t>(place.offset()));
    if (count <= 0) {
      return fail(system_error("write a memory file"));
    }
    bytes.remove_prefix(static_cast<std::size_t>(count));
    place.advance(static_cast<std::uint64_t>(count));
  }
  return {};
}

}  // namespace migrate::carriers
