#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "tools/testbed/daemon.h"
#include "tools/testbed/host.h"

namespace migrate::testbed {

inline constexpr int kMaximalHosts = 26;

/// What `up` is to make.
struct UpOptions {
  int host_count = 2;
  DaemonSettings daemon;
  std::string migratectl;  ///< Path of the program that makes keys, where daemon.tls is set.
  bool groups = false;     ///< Hosts have control groups of their own.
  std::vector<double> processors;  ///< Of each host; empty: all have those of the machine.
  std::vector<std::string> overlays;
  std::vector<std::string> shares;
};

/// One line of `list`.
struct HostStatus {
  Host host;
  std::optional<pid_t> daemon_pid;
  std::size_t process_count = 0;     ///< Processes inside, the daemon included.
  std::optional<double> processors;  ///< Its quota, if it has one.
};

/// Several hosts on one machine, by name. All state is in the kernel and in a folder under /run,
/// so that each call may come from another process. Owned by one thread; every call may block.
class Testbed {
 public:
  /// Names a testbed, which need not exist. Errors: kInvalid for a name that is no file name.
  static Result<Testbed> create(const std::string& name);

  /// Makes the hosts and starts their daemons. On errors nothing is left.
  /// Errors: kRefused if the testbed exists; kInvalid for an overlay that cannot be; kUnsupported
  /// for control groups that cannot be.
  Result<void> up(const UpOptions& options);

  /// Ends every process in the hosts and removes all. Success if there is no such testbed; also
  /// clears away what an `up` that was killed has left.
  Result<void> down();

  /// All hosts. Errors: kNotFound if the testbed is not up.
  Result<std::vector<HostStatus>> list() const;

  /// The host of that name. Errors: kNotFound if there is no such testbed or host in it.
  Result<Host> find_host(const std::string& host_name) const;

  /// Ends the daemon of `host` with SIGTERM and starts it again; its workers and cells stay.
  Result<void> restart_daemon(const Host& host) const;

 private:
  explicit Testbed(std::string name);

  Result<void> build(const UpOptions& options);
  Result<void> write_files(const std::vector<Host>& hosts, const DaemonSettings& daemon) const;
  Result<std::vector<Host>> hosts() const;

  std::string name_;
  std::string directory_;
};

}  // namespace migrate::testbed
