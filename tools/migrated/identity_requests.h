#pragma once

#include <nlohmann/json_fwd.hpp>

#include "base/result.h"
#include "libmigrate/host/event_sink.h"
#include "libmigrate/requests/requests.h"
#include "tools/migrated/local_request.h"
#include "tools/migrated/request.h"

namespace migrate {

// Requests of local clients about a process wherever it is: each finds its global name and asks its
// home, which may be this host. The answer is sent, unless there is an error.

/// The global name of the process that is asked about. Errors: as find_records(), kNotFound.
Result<nlohmann::json> tell_identity(const LocalService& service, const Request& request);

Result<void> show_by_home(const LocalService& service, const Request& request, EventSink& client);

/// Blocks until what is waited for has come, or the client hangs up. A home that cannot be asked is
/// asked again.
Result<void> wait_by_home(const LocalService& service, const Request& request,
                          const WaitRequest& wait, EventSink& client);

/// The same until the process has ended; sends {"event":"process","state","where",...} at first and
/// at each change, and {"event":"unreachable","message"} when its home does not answer any more.
Result<void> watch_process(const LocalService& service, const Request& request, EventSink& client);

/// By its home's deputy, as kill(1) there; where it runs here and its home does not answer, here.
Result<void> kill_process(const LocalService& service, const Request& request,
                          const KillRequest& kill, EventSink& client);

Result<void> use_name(const LocalService& service, const Request& request, const NameRequest& name,
                      EventSink& client);

/// Both homes keep their half of a link; if the second does not take it, the first gives it up.
Result<void> link_processes(const LocalService& service, const Request& request,
                            const LinkRequest& link, EventSink& client);

}  // namespace migrate
