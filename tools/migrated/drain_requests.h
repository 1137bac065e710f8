#pragma once

#include <nlohmann/json.hpp>

#include "base/result.h"
#include "libmigrate/requests/requests.h"
#include "tools/migrated/local_request.h"
#include "tools/migrated/request.h"

namespace migrate {

/// Begins or ends that this host takes no processes, and tells which ones are to leave it: those
/// that came from elsewhere, and those of users (UID_MIN to UID_MAX of login.defs(5)'s defaults,
/// and whoever the request names) that were started here, but for who asks, his ancestors, and what
/// runs in namespaces of its own. Of processes that live elsewhere with their home here, too.
/// Root's to ask. Blocks: reads /proc. Errors: kRefused, kInvalid, kSystem; as Registry.
Result<nlohmann::json> drain_host(const LocalService& service, const Request& request,
                                  const DrainRequest& wanted);

}  // namespace migrate
