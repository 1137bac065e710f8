#pragma once

#include <string>

#include "base/result.h"

namespace migrate {

/// An Error from errno after send or recv on a connection: kPeerLost, unless the fault is clearly
/// this process's own (bad address or descriptor, no memory: kSystem). The name of an errno that
/// only a broken connection gives differs with the moment it breaks, so all others count as that.
Error socket_error(const char* operation, const std::string& peer);

/// Waits until a connection takes more bytes. Blocks. Errors: kPeerLost as soon as the peer has
/// closed, even with bytes of ours still on the way (it would never read them); kSystem.
Result<void> wait_until_writable(int fd, const std::string& peer);

}  // namespace migrate
