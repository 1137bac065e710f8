#pragma once

#include <string>
#include <vector>

#include "base/result.h"

namespace migrate::testbed {

/// One host of a testbed: its name, its address, and the folder that holds its namespaces, daemon
/// state and log. A value; the objects themselves live in the kernel.
struct Host {
  std::string name;       ///< hostA, hostB, ...
  std::string address;    ///< 10.213.0.1, ...
  std::string directory;  ///< In the root mount namespace.

  /// The host number `index` (0 is hostA) of the testbed whose folder is `testbed_directory`.
  static Host at(const std::string& testbed_directory, int index);

  std::string network_path() const { return directory + "/net"; }
  std::string state_path() const { return directory + "/state"; }
  std::string log_path() const { return directory + "/state/migrated.log"; }
  std::string pid_path() const { return directory + "/migrated.pid"; }
};

/// A control group that a host sees as the first one of its hierarchy.
struct GroupView {
  std::string group;
  std::string mount;  ///< Of the hierarchy.
};

/// What the mount namespace of a host differs in from the machine's.
struct HostView {
  std::string testbeds_directory;     ///< Hidden: the folder of all testbeds.
  std::string hosts_file;             ///< Seen as /etc/hosts.
  std::vector<std::string> overlays;  ///< Folders with a private overlay.
  std::vector<std::string> shares;    ///< Files and folders under /tmp or /run, seen all the same.
  std::vector<GroupView> groups;
};

/// Makes the network, mount and UTS namespaces of `host`, whose directory must exist. Inside: its
/// host name; its own /run, /tmp and /var/lib/migrate; `view`. Nothing of it shows outside.
Result<void> create_host(const Host& host, const HostView& view);

}  // namespace migrate::testbed
