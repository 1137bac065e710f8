#pragma once

#include "base/result.h"
#include "libmigrate/proto/home.pb.h"

namespace migrate {

/// The network that this thread is in, for processes that leave this host, their home. What cannot
/// be found is left out. Blocks for less than a millisecond.
wire::HomeNetwork home_network();

/// Whether a peer's is one: of few addresses, which a host can have, each with a prefix that it can
/// have. It can be set up by whoever may at all.
bool is_sound(const wire::HomeNetwork& network);

}  // namespace migrate
