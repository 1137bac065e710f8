#pragma once

#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "libmigrate/host/event_sink.h"
#include "libmigrate/host/worker_context.h"
#include "libmigrate/proto/image.pb.h"
#include "libmigrate/requests/requests.h"

namespace migrate {

/// Writes the verdict as JSON event lines to `client`, ending with a result line.
void run_check(const WorkerContext& context, UniqueFd client, const CheckRequest& request);

/// The same for a check that was carried out: what it found, or why it could not look.
void tell_verdict(EventSink& client, const Result<std::vector<wire::Refusal>>& refusals);

}  // namespace migrate
