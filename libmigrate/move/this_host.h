#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "base/result.h"
#include "libmigrate/host/worker_context.h"

namespace migrate {

/// Whether `destination`, an address as users write it, is the daemon of this host itself, whatever
/// name of the host it uses. Blocks on the resolver. Errors: kInvalid (no address, or there is no
/// such host).
Result<bool> is_this_host(const WorkerContext& context, const std::string& destination);

/// The result of a move of process `pid` to where it is already: nothing was done.
nlohmann::json already_there(pid_t pid, const std::string& destination);

}  // namespace migrate
