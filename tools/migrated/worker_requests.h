#pragma once

#include "base/result.h"
#include "libmigrate/host/event_sink.h"
#include "libmigrate/requests/requests.h"
#include "tools/migrated/local_request.h"
#include "tools/migrated/request.h"

namespace migrate {

/// Passes what a worker carries out to the worker of the process that `request` names; a move or
/// check of a process that has none is carried out here, a move by becoming its worker. The answer
/// is sent, now or later, unless there is an error. Blocks: after a move, as long as the worker
/// lives.
Result<void> carry_out(const LocalService& service, Request& request, const WorkerRequest& wanted,
                       EventSink& client);

}  // namespace migrate
