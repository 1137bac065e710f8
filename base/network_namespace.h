#pragma once

#include <functional>

#include "base/result.h"
#include "base/unique_fd.h"

namespace migrate {

/// The network namespace in which a socket is. Needs CAP_NET_ADMIN. Errors: kSystem.
Result<UniqueFd> network_namespace_of(int socket);

/// Runs `work` in a network namespace, in a thread of its own, and waits for it. Needs
/// CAP_SYS_ADMIN. Errors: those of the work, kSystem.
Result<void> run_in_network_namespace(int space, const std::function<Result<void>()>& work);

}  // namespace migrate
