#pragma once

#include "libmigrate/host/event_sink.h"
#include "libmigrate/host/worker_context.h"
#include "libmigrate/requests/requests.h"
#include "libmigrate/state/session_file.h"
#include "transport/preamble.h"

namespace migrate {

/// The worker of a process at its home: moves it away for the first time, then is its deputy's
/// keeper until the process ends, wherever that is; HomeLife has its phases. Runs in a forked
/// worker, whose one thread is the tracer of the process. Tells `client` of events, and of the
/// result once the wanted wait state is there. Returns when the move was refused or failed, or the
/// process has ended.
void run_source_worker(const WorkerContext& context, EventSink client, const MoveRequest& request);

/// Takes over, as such a worker, what a dead one left in a session file.
void run_adopted_home(const WorkerContext& context, SessionFile file, const SessionId& process);

}  // namespace migrate
