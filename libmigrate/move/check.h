#pragma once

#include "libmigrate/host/event_sink.h"
#include "libmigrate/host/worker_context.h"
#include "libmigrate/move/source_move.h"
#include "libmigrate/requests/requests.h"

namespace migrate {

/// What a move would be asked for that `check` only asks about.
MoveRequest request_of(const CheckRequest& check);

/// Tells `client` the verdict.
void run_check(const WorkerContext& context, EventSink client, const CheckRequest& request);

/// Looks at the process that `move` is of, and tells `client` what it found, or why it could not
/// look.
void tell_verdict(EventSink& client, SourceMove& move, Detail detail);

}  // namespace migrate
