#pragma once

#include "base/result.h"
#include "libmigrate/host/event_sink.h"
#include "libmigrate/requests/requests.h"
#include "tools/migrated/local_request.h"
#include "tools/migrated/request.h"

namespace migrate {

/// Carries out what a daemon does itself: `wanted`, of `request`. The answer is sent, unless there
/// is an error. Blocks: as long as it takes; a `wait` until the client hangs up.
Result<void> carry_out(const LocalService& service, Request& request, const DaemonRequest& wanted,
                       EventSink& client);

}  // namespace migrate
