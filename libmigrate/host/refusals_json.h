#pragma once

#include <nlohmann/json_fwd.hpp>
#include <vector>

#include "libmigrate/image/refusal.h"
#include "libmigrate/inspect/state_table.h"

namespace migrate {

/// Refusals and losses as JSON objects for clients, which have the same members. Those of one code
/// are told once, with the object and reason of the first, their number ("count"), and the objects
/// of the next ("others", fifteen at most): one stale epoll set has hundreds.
nlohmann::json to_json(const Refusals& refusals);
nlohmann::json to_json(const std::vector<Loss>& losses);

}  // namespace migrate
