#pragma once

#include "base/unique_fd.h"
#include "libmigrate/host/event_sink.h"
#include "libmigrate/host/worker_context.h"
#include "libmigrate/move/source_move.h"
#include "libmigrate/requests/requests.h"

namespace migrate {

/// Writes the verdict as JSON event lines to `client`, ending with a result line.
void run_check(const WorkerContext& context, UniqueFd client, const CheckRequest& request);

/// Looks at the process that `move` is of, and tells `client` what it found, or why it could not
/// look.
void tell_verdict(EventSink& client, SourceMove& move);

}  // namespace migrate
