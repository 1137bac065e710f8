#pragma once

#include <sys/types.h>

#include <cstdint>
#include <utility>

#include "base/result.h"
#include "base/unique_fd.h"

namespace migrate {

/// The process that connected a Unix socket: more than its pid, which becomes another's once it has
/// ended. Move-only; const-thread-safe.
class PeerProcess {
 public:
  PeerProcess() = default;  ///< None.

  /// Who is at the other end of a connected Unix socket. `taken_ns`: when the connection was taken,
  /// on CLOCK_BOOTTIME. That he has ended is no error. Errors: kSystem.
  static Result<PeerProcess> of(int unix_fd, std::int64_t taken_ns);
  /// The same by the pid alone, as before Linux 6.5: who was started later than `taken_ns` is
  /// another, as far as a start is told (in hundredths of a second).
  static PeerProcess by_pid(pid_t pid, std::int64_t taken_ns);

  pid_t pid() const { return pid_; }
  /// Whether pid() is this process's still. What was found out by the pid before is of it then.
  bool is_there() const;
  /// The same as an error, kNotFound.
  Result<void> must_be_there() const;

 private:
  PeerProcess(pid_t pid, UniqueFd process) : pid_(pid), process_(std::move(process)) {}

  pid_t pid_ = 0;
  UniqueFd process_;  // a pidfd; invalid: it has ended
};

}  // namespace migrate
