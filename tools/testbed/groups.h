#pragma once

#include <string>

#include "base/result.h"
#include "tools/testbed/host.h"

namespace migrate::testbed {

/// What of a host a process is.
enum class GroupRole { kPrograms, kDaemon };

/// Makes control groups for `host` below those of this process, one for its programs and one for
/// its daemon, in each hierarchy that lets it. Errors: kUnsupported (none does), kSystem.
Result<void> make_groups(const Host& host, const std::string& testbed);

/// Puts this process into those of `host`, if it has some. Before it enters the host's namespaces.
/// Errors: kSystem.
Result<void> enter_groups(const Host& host, GroupRole role);

/// Removes those of `host`, in which no process may be any more, and all below them.
void remove_groups(const Host& host);

}  // namespace migrate::testbed
