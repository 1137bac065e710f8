#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "tools/testbed/host.h"

namespace migrate::testbed {

/// How the daemons of a testbed are started. No daemon where `program` is empty.
struct DaemonSettings {
  std::string program;                 ///< Path of migrated.
  bool tls = false;                    ///< The hosts have keys; else --insecure.
  bool supervise = false;              ///< Started again when they end otherwise than by us.
  std::vector<std::string> arguments;  ///< Further arguments, after those that the testbed gives.
};

/// The pid of the host's daemon, if it runs.
std::optional<pid_t> daemon_pid(const Host& host);

/// Starts migrated in `host`, in a session of its own, its output appended to the host's log.
/// Returns when the program was executed; await_daemon() waits until it serves.
/// Errors: what fork or exec met.
Result<pid_t> start_daemon(const Host& host, const DaemonSettings& settings);

/// Blocks until the daemon `pid` accepts connections at its socket, at most ten seconds.
/// Errors: kSystem if it ended or is late; the error holds the end of its log.
Result<void> await_daemon(const Host& host, pid_t pid);

/// Ends the daemon, but not its workers, by `signal`, then SIGKILL after two seconds. It stays
/// ended, supervised or not. Success if none runs.
Result<void> stop_daemon(const Host& host, int signal);

}  // namespace migrate::testbed
