#pragma once

#include "base/unique_fd.h"
#include "libmigrate/host/worker_context.h"
#include "libmigrate/requests/requests.h"

namespace migrate {

/// Writes the verdict as JSON event lines to `client`, ending with a result line.
void run_check(const WorkerContext& context, UniqueFd client, const CheckRequest& request);

}  // namespace migrate
