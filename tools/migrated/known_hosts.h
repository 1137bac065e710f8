#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "tools/migrated/local_request.h"
#include "transport/address.h"

namespace migrate {

/// The addresses of other hosts that this one knows: its `peers`, and those of processes that came
/// or went. Each once, without its own. Errors: as Registry.
Result<std::vector<std::string>> known_addresses(const LocalService& service);

/// The daemon of the host that calls itself `name`; nothing if it is this one. Else `name` may be
/// an address, HOST[:PORT]. Blocks up to a few seconds for each known host that does not answer.
/// Errors: kPeerLost (no host that is known says so, perhaps because it does not answer).
Result<std::optional<Address>> find_host(const LocalService& service, const std::string& name);

}  // namespace migrate
