#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "libmigrate/state/registry.h"

namespace migrate {

/// The links of a process that is away, or came from elsewhere, as its worker at this host has
/// noted them: what they are, and how many bytes have gone each way since it left its home. Empty
/// if it has none. Blocks for some microseconds.
nlohmann::json links_of(const std::string& state_directory, const ProcessRecord& record);

/// Rules of this host, the home of a process that is away, about its links, and how often each was
/// applied. Empty if there are none. Blocks as links_of().
nlohmann::json link_rules_of(const std::string& state_directory, const ProcessRecord& record);

}  // namespace migrate
