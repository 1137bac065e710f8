#pragma once

#include "base/result.h"
#include "libmigrate/links/tcp_socket.h"

namespace migrate {

/// Gives `fd`, which is neither bound nor connected, the name `local` in its network namespace,
/// whether an interface there has that address or not. Blocks for less than a millisecond. Errors:
/// kSystem.
Result<void> give_name(int fd, const SocketName& local);

}  // namespace migrate
