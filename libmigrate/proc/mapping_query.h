#pragma once

#include <cstdint>
#include <optional>

#include "base/result.h"

namespace migrate {

/// A mapping of a file that is shared (MAP_SHARED), as the kernel answers for it.
struct SharedFileMapping {
  std::uint64_t end = 0;
  bool writable = false;
  std::uint32_t device_major = 0;  ///< As maps shows them; not always stat's.
  std::uint32_t device_minor = 0;
  std::uint64_t inode = 0;
};

/// The first one that ends above `from` in the address space of `maps`, an open /proc/PID/maps;
/// nothing if there is none. It takes a hundredth of what reading the text takes. Kernel:
/// PROCMAP_QUERY (6.11). Errors: kUnsupported (an older kernel), kSystem.
Result<std::optional<SharedFileMapping>> find_shared_file_mapping(int maps, std::uint64_t from);

}  // namespace migrate
