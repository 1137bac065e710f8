#include "pager/page_reader.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
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
constexpr std::uint64_t kEntryGuard = std::uint64_t{1} << 58U;  // Linux 6.15

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

}  // namespace

ProcessPageReader::ProcessPageReader(pid_t pid, UniqueFd memory, UniqueFd pagemap)
    : pid_(pid),
      memory_(std::move(memory)),
      pagemap_(std::move(pagemap)),
      shows_guards_(kPageIsGuard) {}

Result<std::unique_ptr<ProcessPageReader>> ProcessPageReader::create(pid_t pid) {
  return create(pid, MIGRATE_TRY(open_file("/proc/" + std::to_string(pid) + "/mem", O_RDONLY)));
}

Result<std::unique_ptr<ProcessPageReader>> ProcessPageReader::create(pid_t pid, UniqueFd memory) {
  const std::string folder = "/proc/" + std::to_string(pid);
  UniqueFd pagemap = MIGRATE_TRY(open_file(folder + "/pagemap", O_RDONLY));
  return std::unique_ptr<ProcessPageReader>(
      new ProcessPageReader(pid, std::move(memory), std::move(pagemap)));
}

// By the descriptor alone, though process_vm_readv() copies once and not twice: that goes by the
// process's id, and would read another program if the process is made to run one (execve).
Result<std::uint64_t> ProcessPageReader::read(std::span<const PageRange> ranges,
                                              std::span<std::byte> bytes) {
  std::uint64_t done = 0;
  for (const PageRange& range : ranges) {
    const std::uint64_t wanted = std::min(range.bytes(), bytes.size() - done * kPageBytes);
    for (std::uint64_t at = 0; at < wanted;) {
      const ssize_t count = ::pread(memory_.get(), bytes.data() + done * kPageBytes, wanted - at,
                                    static_cast<off_t>(range.start + at));
      if (count == 0) {
        return fail(make_error(ErrorCode::kNotFound, "read memory", process_name(pid_)));
      }
      if (count < 0 && errno != EIO) {  // Such as no memory for it now: no word about the page.
        return fail(system_error("read memory", process_name(pid_)));
      }
      if (count < static_cast<ssize_t>(kPageBytes) && is_guard(range.start + at)) {
        std::memset(bytes.data() + done * kPageBytes, 0, kPageBytes);
        ++done;
        at += kPageBytes;
        continue;
      }
      if (count < static_cast<ssize_t>(kPageBytes)) {
        return done;
      }
      const std::uint64_t pages = static_cast<std::uint64_t>(count) / kPageBytes;
      done += pages;
      at += pages * kPageBytes;
    }
  }
  return done;
}

// What nobody may read (MADV_GUARD_INSTALL) is zero to whoever takes the guard away.
bool ProcessPageReader::is_guard(std::uint64_t address) const {
  std::uint64_t entry = 0;
  return ::pread(pagemap_.get(), &entry, sizeof(entry),
                 static_cast<off_t>(address / kPageBytes * sizeof(entry))) == sizeof(entry) &&
         (entry & kEntryGuard) != 0;
}

Result<void> ProcessPageReader::scan(const ServedRegion& region, std::vector<PageRange>& present) {
  if (region.is_all_data) {
    append(present, region.range);
    return {};
  }
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
  // Not wanted: pages of the file (the destination has it), the zero page (it is zero), guards
  // (which a page that arrives would replace).
  const std::uint64_t unwanted =
      (region.kind == RegionKind::kFileCopy ? kPageIsFile : kPageIsZero) | shows_guards_;
  argument.category_inverted = unwanted;
  argument.category_mask = unwanted;
  argument.category_anyof_mask = kPageIsPresent | kPageIsSwapped;
  while (argument.start < argument.end) {
    const int count = ::ioctl(pagemap_.get(), kScanRequest, &argument);
    if (count < 0 && errno == EINVAL && shows_guards_ != 0) {
      argument.category_inverted &= ~shows_guards_;
      argument.category_mask &= ~shows_guards_;
      shows_guards_ = 0;
      continue;
    }
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
      if (exists && !in_file && (entries[i] & kEntryGuard) == 0) {
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
