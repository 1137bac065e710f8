#pragma once

#include "base/result.h"

namespace migrate {

/// Whether the connection `fd` may be taken although nothing authenticates its peer: if neither of
/// its ends is a loopback address, or if the other end is a socket of root or of this process's
/// effective user. Errors: kRefused (another user, or whose it is cannot be found), kSystem.
Result<void> check_local_peer(int fd);

/// The other way round: whether something may be said on `fd`, which was connected, although
/// nothing authenticates who listens there: if the other end is an open socket of root or of this
/// process's effective user, for which whoever listens must accept the connection. An end on
/// another host tells nothing of itself and is believed if `anywhere`. Blocks up to `timeout_ms`.
/// Errors: kRefused (another user's; or elsewhere), kRetry (nobody has accepted it), kSystem.
Result<void> check_local_listener(int fd, bool anywhere, int timeout_ms);

}  // namespace migrate
