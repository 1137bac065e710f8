#pragma once

#include "base/result.h"
#include "libmigrate/host/event_sink.h"
#include "libmigrate/requests/requests.h"
#include "tools/migrated/local_request.h"
#include "tools/migrated/request.h"

namespace migrate {

/// Copies the process that `request` names, which runs on, and moves each copy to its destination;
/// each has a worker of its own, which outlives this. The client hears of each copy
///   {"event":"copy","pid":N,"destination":HOST,"exit":N}
/// and in the end of all: "processes" are those that run elsewhere, "failed" the others, which have
/// ended, or were not made; "stop_us" is for how long the process stood still. Of a client that
/// hangs up no more copies are made. Blocks until the last copy runs, or does not. Errors:
/// kInvalid, kRefused, kNotFound, kSystem (nothing was copied).
Result<void> fork_process(const LocalService& service, const Request& request,
                          const ForkRequest& fork, EventSink& client);

}  // namespace migrate
