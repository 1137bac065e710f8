#pragma once

#include <sys/types.h>

#include <chrono>
#include <compare>
#include <string>
#include <vector>

#include "base/process_identity.h"
#include "base/result.h"

namespace migrate::testbed {

/// Identity of a namespace: two files name the same namespace if their ids are equal.
struct NamespaceId {
  dev_t device = 0;
  ino_t inode = 0;
  auto operator<=>(const NamespaceId&) const = default;
};

/// The namespace that `path` names: a /proc/PID/ns file or a bind mount of one.
/// Errors: kNotFound; kInvalid if the file names no namespace (a mount point not yet used).
Result<NamespaceId> namespace_id(const std::string& path);

/// Processes of this PID namespace whose network, mount or UTS namespace is one of `ids`, without
/// the caller. Ended processes that only wait for their parent (zombies) are not listed.
std::vector<pid_t> processes_in(const std::vector<NamespaceId>& ids);

/// Whether `pid` still runs; a zombie does not.
bool is_running(pid_t pid);

/// Ends every process in `ids`: SIGTERM, and SIGKILL to what is left after `patience`.
/// Blocks until all are gone. Errors: kSystem if some survive SIGKILL for ten seconds.
Result<void> end_processes(const std::vector<NamespaceId>& ids, std::chrono::milliseconds patience);

/// Sends `signal` to a process and waits until it is gone, sending SIGKILL after `patience`.
/// Success if it has ended before.
Result<void> end_process(const ProcessIdentity& process, int signal,
                         std::chrono::milliseconds patience);

}  // namespace migrate::testbed
