#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "pager/page_range.h"
#include "pager/region.h"

namespace migrate {

/// Reads the memory of a frozen process. All functions may be called by several threads at once.
class PageReader {
 public:
  virtual ~PageReader() = default;
  PageReader() = default;
  PageReader(const PageReader&) = delete;
  PageReader& operator=(const PageReader&) = delete;

  /// Reads `ranges` one after the other into `bytes`, which is exactly as long as they are.
  /// Returns the number of whole pages read; fewer than asked for means that the next one cannot be
  /// read. Errors: kNotFound (the process is gone), kSystem.
  virtual Result<std::uint64_t> read(std::span<const PageRange> ranges,
                                     std::span<std::byte> bytes) = 0;

  /// Appends to `present`, ascending, what of `region` the destination cannot make up by itself.
  virtual Result<void> scan(const ServedRegion& region, std::vector<PageRange>& present) = 0;
};

/// Reads by /proc/PID/mem, also what is mapped without read permission, and so for all its life one
/// address space, whatever program the process runs; scans by PAGEMAP_SCAN (Linux 6.7), else by
/// /proc/PID/pagemap. Needs ptrace access to the process.
class ProcessPageReader final : public PageReader {
 public:
  static Result<std::unique_ptr<ProcessPageReader>> create(pid_t pid);
  /// The same with /proc/PID/mem as it was opened when the process surely was the one that is
  /// meant.
  static Result<std::unique_ptr<ProcessPageReader>> create(pid_t pid, UniqueFd memory);

  Result<std::uint64_t> read(std::span<const PageRange> ranges,
                             std::span<std::byte> bytes) override;
  Result<void> scan(const ServedRegion& region, std::vector<PageRange>& present) override;

  /// Reads from now on through another process that shares the memory of the first, which may end
  /// then.
  void follow(pid_t pid) { pid_ = pid; }

  /// Scans without PAGEMAP_SCAN, as on older kernels. For tests.
  void forget_pagemap_scan() { has_pagemap_scan_ = false; }

 private:
  ProcessPageReader(pid_t pid, UniqueFd memory, UniqueFd pagemap);

  Result<bool> scan_by_ioctl(const ServedRegion& region, std::vector<PageRange>& present);
  Result<void> scan_by_entries(const ServedRegion& region, std::vector<PageRange>& present);
  bool is_guard(std::uint64_t address) const;
  bool scan_shared(const ServedRegion& region, std::vector<PageRange>& present) const;

  std::atomic<pid_t> pid_;
  UniqueFd memory_;
  UniqueFd pagemap_;
  bool has_pagemap_scan_ = true;
  std::uint64_t shows_guards_;  // the category of PAGEMAP_SCAN; 0: the kernel has none
};

}  // namespace migrate
