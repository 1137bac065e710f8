#include "pager/page_reader.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <string>
#include <utility>

#include "base/file.h"
#include "pager/internal/pagemap_scan.h"

namespace migrate {
namespace {

// Bits of an entry of /proc/PID/pagemap.
constexpr std::uint64_t kEntryPresent = std::uint64_t{1} << 63U;
constexpr std::uint64_t kEntrySwapped = std::uint64_t{1} << 62U;
constexpr std::uint64_t kEntryFile = std::uint64_t{1} << 61U;

constexpr std::size_t kMaxVectors = 256;

void append(std::vector<PageRange>& ranges, PageRange range) {
  if (range.empty()) {
    return;
  }
  if (!ranges.empty() && ranges.back().end() == range.start) {
    ranges.back().page_count += range.page_count;
  } else {
    ranges.push_back(range);
  }
}

std::string process_name(pid_t pid) {
  return "pid " + std::to_string(pid);
}

/// What of `ranges` comes after the first `skip_pages`, as vectors; returns how many.
std::size_t remaining_vectors(std::span<const PageRange> ranges, std::uint64_t skip_pages,
                              std::array<iovec, kMaxVectors>& vectors) {
  std::size_t count = 0;
  for (const PageRange& range : ranges) {
    if (skip_pages >= range.page_count) {
      skip_pages -= range.page_count;
      continue;
    }
    if (count == kMaxVectors) {
      break;
    }
    const std::uint64_t start = range.start + skip_pages * kPageBytes;
    vectors[count].iov_base = reinterpret_cast<void*>(start);
    vectors[count].iov_len = range.end() - start;
    skip_pages = 0;
    ++count;
  }
  return count;
}

}  // namespace

ProcessPageReader::ProcessPageReader(pid_t pid, UniqueFd memory, UniqueFd pagemap)
    : pid_(pid), memory_(std::move(memory)), pagemap_(std::move(pagemap)) {}

Result<std::unique_ptr<ProcessPageReader>> ProcessPageReader::create(pid_t pid) {
  const std::string folder = "/proc/" + std::to_string(pid);
  UniqueFd memory = MIGRATE_TRY(open_file(folder + "/mem", O_RDONLY));
  UniqueFd pagemap = MIGRATE_TRY(open_file(folder + "/pagemap", O_RDONLY));
  return std::unique_ptr<ProcessPageReader>(
      new ProcessPageReader(pid, std::move(memory), std::move(pagemap)));
}

Result<std::uint64_t> ProcessPageReader::read(std::span<const PageRange> ranges,
                                              std::span<std::byte> bytes) {
  const std::uint64_t total = bytes.size() / kPageBytes;
  std::uint64_t done = 0;
  std::array<iovec, kMaxVectors> remote;
  while (done < total) {
    const std::size_t remote_count = remaining_vectors(ranges, done, remote);
    const iovec local{bytes.data() + done * kPageBytes, bytes.size() - done * kPageBytes};
    const ssize_t count = ::process_vm_readv(pid_, &local, 1, remote.data(), remote_count, 0);
    if (count < 0 && errno != EFAULT) {
      return fail(system_error("read memory", process_name(pid_)));
    }
    const std::uint64_t pages = count > 0 ? static_cast<std::uint64_t>(count) / kPageBytes : 0;
    done += pages;
    if (pages > 0) {
      continue;
    }
    // Perhaps without read permission, which /proc/PID/mem looks past.
    const ssize_t forced =
        ::pread(memory_.get(), local.iov_base, remote[0].iov_len,
                static_cast<off_t>(reinterpret_cast<std::uint64_t>(remote[0].iov_base)));
    if (forced == 0) {
      return fail(make_error(ErrorCode::kNotFound, "read memory", process_name(pid_)));
    }
    if (forced < static_cast<ssize_t>(kPageBytes)) {
      return done;
    }
    done += static_cast<std::uint64_t>(forced) / kPageBytes;
  }
  return done;
}

Result<void> ProcessPageReader::scan(const ServedRegion& region, std::vector<PageRange>& present) {
  if (region.kind == RegionKind::kSharedMemory) {
    // Page tables do not tell: others may have written the memory.
    if (!scan_shared(region, present)) {
      append(present, region.range);
    }
    return {};
  }
  if (has_pagemap_scan_ && MIGRATE_TRY(scan_by_ioctl(region, present))) {
    // An address space that has ended shows no pages either: those are not absent, but lost.
    char byte = 0;
    if (::pread(memory_.get(), &byte, 1, static_cast<off_t>(region.range.start)) == 0) {
      return fail(make_error(ErrorCode::kNotFound, "scan the memory of", process_name(pid_)));
    }
    return {};
  }
  return scan_by_entries(region, present);
}

Result<bool> ProcessPageReader::scan_by_ioctl(const ServedRegion& region,
                                              std::vector<PageRange>& present) {
  std::vector<ScanRegion> found(4096);
  ScanArgument argument{};
  argument.size = sizeof(argument);
  argument.start = region.range.start;
  argument.end = region.range.end();
  argument.vector = reinterpret_cast<std::uint64_t>(found.data());
  argument.vector_length = found.size();
  // Not wanted: pages of the file (the destination has it), the zero page (it is zero).
  const std::uint64_t unwanted = region.kind == RegionKind::kFileCopy ? kPageIsFile : kPageIsZero;
  argument.category_inverted = unwanted;
  argument.category_mask = unwanted;
  argument.category_anyof_mask = kPageIsPresent | kPageIsSwapped;
  while (argument.start < argument.end) {
    const int count = ::ioctl(pagemap_.get(), kScanRequest, &argument);
    if (count < 0 && (errno == ENOTTY || errno == EINVAL)) {
      has_pagemap_scan_ = false;
      return false;
    }
    if (count < 0) {
      return fail(system_error("scan pages", process_name(pid_)));
    }
    for (int i = 0; i < count; ++i) {
      const ScanRegion& run = found[static_cast<std::size_t>(i)];
      append(present, PageRange::between(run.start, run.end));
    }
    if (count == 0) {
      return true;
    }
    // Not from walk_end: Linux leaves it at an earlier place when the walk reached the end after
    // its internal buffer was full at least once.
    argument.start = found[static_cast<std::size_t>(count) - 1].end;
    argument.walk_end = 0;
  }
  return true;
}

Result<void> ProcessPageReader::scan_by_entries(const ServedRegion& region,
                                                std::vector<PageRange>& present) {
  std::vector<std::uint64_t> entries(1U << 15U);
  std::uint64_t address = region.range.start;
  while (address < region.range.end()) {
    const std::uint64_t want =
        std::min<std::uint64_t>(entries.size(), (region.range.end() - address) / kPageBytes);
    const ssize_t bytes = ::pread(pagemap_.get(), entries.data(), want * sizeof(std::uint64_t),
                                  static_cast<off_t>(address / kPageBytes * sizeof(std::uint64_t)));
    if (bytes <= 0) {
      return fail(bytes < 0 ? system_error("read pagemap", process_name(pid_))
                            : make_error(ErrorCode::kNotFound, "read pagemap", process_name(pid_)));
    }
    const std::uint64_t count = static_cast<std::uint64_t>(bytes) / sizeof(std::uint64_t);
    for (std::uint64_t i = 0; i < count; ++i) {
      const bool exists = (entries[i] & (kEntryPresent | kEntrySwapped)) != 0;
      const bool in_file = region.kind == RegionKind::kFileCopy && (entries[i] & kEntryFile) != 0;
      if (exists && !in_file) {
        append(present, {address + i * kPageBytes, 1});
      }
    }
    address += count * kPageBytes;
  }
  return {};
}

bool ProcessPageReader::scan_shared(const ServedRegion& region,
                                    std::vector<PageRange>& present) const {
  std::array<char, 96> path{};
  std::snprintf(path.data(), path.size(), "/proc/%d/map_files/%llx-%llx", pid_.load(),
                static_cast<unsigned long long>(region.range.start),
                static_cast<unsigned long long>(region.range.end()));
  const UniqueFd object(::open(path.data(), O_RDONLY | O_CLOEXEC));
  if (!object.valid()) {
    return false;
  }
  std::vector<PageRange> found;
  const auto limit = static_cast<off_t>(region.object_offset + region.range.bytes());
  off_t position = static_cast<off_t>(region.object_offset);
  while (position < limit) {
    const off_t data = ::lseek(object.get(), position, SEEK_DATA);
    if (data < 0 && errno == ENXIO) {
      break;  // nothing more
    }
    const off_t hole = data < 0 ? -1 : ::lseek(object.get(), data, SEEK_HOLE);
    if (hole <= data) {
      return false;
    }
    const auto start = static_cast<std::uint64_t>(std::min(data, limit));
    const auto end = static_cast<std::uint64_t>(std::min(hole, limit));
    const std::uint64_t base = region.range.start - region.object_offset;
    append(found,
           PageRange::between(page_floor(base + start), page_floor(base + end + kPageBytes - 1)));
    position = hole;
  }
  for (const PageRange& range : found) {
    append(present, range.intersect(region.range));
  }
  return true;
}

}  // namespace migrate
