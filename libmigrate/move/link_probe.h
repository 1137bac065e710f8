#pragma once

#include "base/result.h"
#include "libmigrate/advisor/forecast.h"
#include "libmigrate/move/control_channel.h"

namespace migrate {

/// Finds out what the way to a destination that answers probes carries: some empty ones, then at
/// most 8 MiB for at most 40 ms. Blocks for a second at most where nothing is answered. Errors:
/// kRetry, kPeerLost, kCorrupt.
Result<LinkSpeed> probe_link(ControlChannel& control);

/// The destination's side, after an answer that ends a connection: answers probes until the source
/// has closed it, says something else, or had two seconds.
void answer_probes(ControlChannel& control);

}  // namespace migrate
