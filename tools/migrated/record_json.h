#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "libmigrate/state/registry.h"

namespace migrate {

/// A row of the registry as `ps` and `show` give it. `here` is this host's name, shown for an
/// empty address.
nlohmann::json record_json(const ProcessRecord& record, const std::string& here);

/// Why the process did not end by itself; empty if it did, or has not ended.
std::string lost_reason(const ProcessRecord& record);

/// "exited with status 3", "ended by signal 9 (Killed)".
std::string exit_text(int wait_status);

}  // namespace migrate
