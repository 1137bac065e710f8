#pragma once

#include "base/result.h"

namespace migrate {

/// Whether the connection `fd` may be taken although nothing authenticates its peer: if neither of
/// its ends is a loopback address, or if the other end is a socket of root or of this process's
/// effective user. Errors: kRefused (another user, or whose it is cannot be found), kSystem.
Result<void> check_local_peer(int fd);

}  // namespace migrate
