#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "tools/testbed/host.h"

namespace migrate::testbed {

/// What of a host a process is.
enum class GroupRole { kPrograms, kDaemon };

/// What a host is to have of its own.
struct HostLimits {
  bool groups = false;               ///< Groups in each hierarchy that lets us make some.
  std::optional<double> processors;  ///< All that runs in it gets no more of these together.
};

/// Makes control groups for `host`, one for its programs and one for its daemon. Those that limit
/// processors are to be seen in the host as the first of their hierarchy, as a quota of a machine
/// is none of its processes': these are what is returned. The daemon is beside these, not in them:
/// it shares no quota with ranks that wait in a loop, as it shares no processor with them where
/// nodes have one to spare. The host's directory must exist.
/// Errors: kUnsupported (no hierarchy lets us, or none has quotas of processors), kSystem.
Result<std::vector<GroupView>> make_groups(const Host& host, const std::string& testbed,
                                           const HostLimits& limits);

/// What make_groups() gave it, as the kernel has it.
std::optional<double> processors_of(const Host& host);

/// The rule by which a daemon puts guests where the programs of `host` have their quota; empty if
/// they have none.
std::string rule_for_guests(const Host& host);

/// Puts this process into those of `host`, if it has some. Before it enters the host's namespaces.
/// Errors: kSystem.
Result<void> enter_groups(const Host& host, GroupRole role);

/// Removes those of `host`, in which no process may be any more, and all below them.
void remove_groups(const Host& host);

}  // namespace migrate::testbed
