#include "libmigrate/carriers/memory_content.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <numeric>
#include <string>

namespace migrate::carriers {
namespace {

constexpr int kNumbersOfExtent = 2;  // Offset and length.
constexpr std::uint64_t kPageBytes = 4096;
// As many as there can be, each of one page: a file system in user space may tell of less.
constexpr std::size_t kMaxExtents = kMaxMemoryFileBytes / kPageBytes;

}  // namespace

Result<Extents> data_of(int fd, std::uint64_t size) {
  Extents extents;
  std::uint64_t found = 0;
  // The program may write ahead of us, for ever.
  for (std::uint64_t at = 0;
       at < size && found <= kMaxMemoryFileBytes && extents.size() <= kMaxExtents;) {
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
    found += to - from;
    at = to;
  }
  return extents;
}

std::uint64_t bytes_in(const Extents& extents) {
  return std::accumulate(extents.begin(), extents.end(), std::uint64_t{0},
                         [](std::uint64_t sum, const auto& extent) { return sum + extent.second; });
}

Result<void> read_content(int fd, const Extents& extents, wire::SharedMemory& memory) {
  std::string& content = *memory.mutable_content();
  content.clear();
  memory.clear_extents();
  content.reserve(bytes_in(extents));
  for (const auto& [offset, length] : extents) {
    const std::size_t before = content.size();
    content.resize(before + length);
    for (std::uint64_t done = 0; done < length;) {
      const ssize_t count = ::pread(fd, content.data() + before + done, length - done,
                                    static_cast<off_t>(offset + done));
      if (count <= 0) {
        return fail(count < 0 ? system_error("read a memory file")
                              : make_error(ErrorCode::kRetry, "read a memory file",
                                           "it got shorter meanwhile"));
      }
      done += static_cast<std::uint64_t>(count);
    }
    const auto last = content.find_last_not_of('\0');
    content.resize(std::max(before, last == std::string::npos ? 0 : last + 1));
    if (content.size() > before) {
      memory.add_extents(offset);
      memory.add_extents(content.size() - before);
    }
  }
  return {};
}

std::uint64_t bytes_touched(const wire::SharedMemory& memory) {
  std::uint64_t pages = 0;
  for (int i = 0; i + 1 < memory.extents_size(); i += kNumbersOfExtent) {
    const std::uint64_t last = memory.extents(i) + memory.extents(i + 1) - 1;
    pages += last / kPageBytes - memory.extents(i) / kPageBytes + 1;
  }
  return pages * kPageBytes;
}

bool has_sound_content(const wire::SharedMemory& memory) {
  const auto& numbers = memory.extents();
  if (numbers.size() % kNumbersOfExtent != 0) {
    return false;
  }
  std::uint64_t end = 0;
  std::uint64_t bytes = 0;
  for (int i = 0; i < numbers.size(); i += kNumbersOfExtent) {
    const std::uint64_t offset = numbers[i];
    const std::uint64_t length = numbers[i + 1];
    if (length == 0 || offset < end || offset > memory.size_bytes() ||
        length > memory.size_bytes() - offset) {
      return false;
    }
    end = offset + length;
    bytes += length;
  }
  return bytes == memory.content().size() && bytes_touched(memory) <= kMaxMemoryFileBytes;
}

Result<void> write_content(int fd, const wire::SharedMemory& memory) {
  std::uint64_t taken = 0;
  for (int i = 0; i + 1 < memory.extents_size(); i += kNumbersOfExtent) {
    const std::uint64_t offset = memory.extents(i);
    const std::uint64_t length = memory.extents(i + 1);
    for (std::uint64_t done = 0; done < length;) {
      const ssize_t count = ::pwrite(fd, memory.content().data() + taken + done, length - done,
                                     static_cast<off_t>(offset + done));
      if (count < 0) {
        return fail(system_error("write a memory file"));
      }
      done += static_cast<std::uint64_t>(count);
    }
    taken += length;
  }
  return {};
}

}  // namespace migrate::carriers
