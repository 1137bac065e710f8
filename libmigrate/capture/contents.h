#pragma once

#include <sys/types.h>

#include "base/result.h"
#include "libmigrate/proto/image.pb.h"

namespace migrate {

/// Reads the bytes that travel inside the image: what is in pipes (without taking it) and in
/// memory files that are open as descriptors. The process must be stopped.
/// Errors: kRefused when a memory file is larger than kMaxMemoryFileBytes, kSystem.
Result<void> capture_contents(pid_t process, wire::Image& image);

/// Larger memory files with open descriptors are refused: their bytes travel inside the freeze.
inline constexpr std::uint64_t kMaxMemoryFileBytes = 64U << 20U;

}  // namespace migrate
