#pragma once

#include <string>

#include "base/result.h"

namespace migrate {

/// Whether this host takes no processes, since those that are here are to leave it (`migratectl
/// drain`): a file in the state directory, so that it holds for a daemon that is started again,
/// too. Thread-safe; any process may ask. Errors: kSystem.
Result<bool> is_drained(const std::string& state_directory);

/// From the next offer on. Setting what is so already is no error. Errors: kSystem.
Result<void> set_drained(const std::string& state_directory, bool drained);

}  // namespace migrate
