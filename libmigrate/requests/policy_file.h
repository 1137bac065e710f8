#pragma once

#include <string>

#include "base/result.h"
#include "libmigrate/requests/link_rules.h"
#include "libmigrate/requests/policy_rules.h"

namespace migrate {

/// Reads the policy file `path`. Blocks as long as what it names gives nothing. Errors: kInvalid
/// with file, line and column, or since it is longer than 1 MiB; kNotFound, kSystem.
Result<PolicyRules> read_policy(const std::string& path);

/// What a host's policy has: how memory travels, and which links are made.
struct HostRules {
  PolicyRules travel;
  LinkRules links;
};
/// The same of a host's file. Blocks on the user database, too.
Result<HostRules> read_host_policy(const std::string& path);

}  // namespace migrate
