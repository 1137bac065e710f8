#pragma once

#include <string>

#include "base/result.h"
#include "libmigrate/requests/policy_rules.h"

namespace migrate {

/// Reads the policy file `path`. Blocks as long as what it names gives nothing. Errors: kInvalid
/// with file, line and column, or since it is longer than 1 MiB; kNotFound, kSystem.
Result<PolicyRules> read_policy(const std::string& path);

}  // namespace migrate
