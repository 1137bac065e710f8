#pragma once

#include <signal.h>
#include <sys/types.h>

#include <cstdint>

#include "base/result.h"
#include "base/unique_fd.h"

namespace migrate {

/// When a process was started, in clock ticks since boot: with its pid, it is that one and no later
/// one. 0 if it has ended, reaped or not.
std::uint64_t start_time(pid_t process);

/// Which process is meant, also when its pid has gone to another one. A value type.
struct ProcessIdentity {
  pid_t pid = 0;
  std::uint64_t start = 0;  ///< As start_time() gave it; 0: of no process.

  /// Of the process that has this pid now.
  static ProcessIdentity of(pid_t pid) { return {pid, start_time(pid)}; }

  /// Whether it runs, or could.
  bool is_alive() const { return start != 0 && start_time(pid) == start; }

  /// A descriptor that stands for this process, whatever becomes of its pid. Errors: kNotFound (it
  /// has ended), kSystem. Kernel: pidfd_open (5.3).
  Result<UniqueFd> open() const;
};

/// Sends `signal` to the process of a pidfd (borrowed), as `information` says or as from kill(2);
/// true if there still was one.
bool send_signal(int pidfd, int signal, siginfo_t* information = nullptr);

}  // namespace migrate
