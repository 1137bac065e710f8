#pragma once

#include <sys/types.h>

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"

namespace migrate {

/// What the kernel itself notes of one mapping of a process.
struct KernelMapping {
  std::uint64_t start = 0;
  std::uint64_t end = 0;
  std::uint64_t flags = 0;  ///< vm_flags: which bit means what differs between kernels.
  bool has_policy = false;  ///< A memory policy of its own, or its process's first thread has one.

  friend bool operator==(const KernelMapping&, const KernelMapping&) = default;
};

/// Lists the mappings of processes by a small program in the kernel (BPF, an iterator of
/// task_vma). Unlike smaps and numa_maps, which show the same flags and policies, that looks at no
/// page tables: it takes microseconds, however much memory there is, and keeps nobody from changing
/// his mappings. Thread-safe. Kernel: 5.13 with BTF; CAP_BPF and CAP_PERFMON, or CAP_SYS_ADMIN.
class MappingList {
 public:
  /// Takes some milliseconds the first time, to be spent before anybody waits; later ones of this
  /// process and of those that it forks then are quick. Errors: kUnsupported (the kernel cannot, or
  /// we may not), kSystem.
  static Result<MappingList> create();

  /// The mappings of the first thread `pid`, ascending; of one that changes them meanwhile perhaps
  /// not all, or some twice. Errors: kNotFound (there is no such process), kUnsupported (very many
  /// mappings), kSystem.
  Result<std::vector<KernelMapping>> of(pid_t pid) const;

 private:
  explicit MappingList(UniqueFd program) : program_(std::move(program)) {}

  UniqueFd program_;
};

}  // namespace migrate
