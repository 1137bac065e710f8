#pragma once

#include <sys/types.h>

#include <string>
#include <utility>

#include "base/result.h"
#include "base/unique_fd.h"

namespace migrate {

/// Held by the worker that moves the process with a pid away from its home, so that of two requests
/// one moves it. Given up with the object, or when its holder dies. A move-only value.
///
/// It is a lock of one byte, whose offset is the pid, of the file `pids.lock` in the state
/// directory (F_OFD_SETLK, Linux 3.15), which is shared with children that have the descriptor.
class PidLock {
 public:
  /// Waits up to 2 s for whoever has it. Errors: kRetry (another worker has it still), kSystem.
  static Result<PidLock> take(const std::string& state_directory, pid_t pid);

 private:
  explicit PidLock(UniqueFd file) : file_(std::move(file)) {}

  UniqueFd file_;
};

}  // namespace migrate
