#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "tools/testbed/host.h"

namespace migrate::testbed {

/// Joins hosts: a bridge in the network namespace at `bridge_directory`, and for each host a
/// veth pair from the bridge to the host's eth0, which gets the host's address. Needs `ip`.
/// Blocks. On errors what was made stays, and goes with the namespaces.
Result<void> connect_hosts(const std::string& bridge_directory, const std::vector<Host>& hosts);

}  // namespace migrate::testbed
