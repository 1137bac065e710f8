#pragma once

#include <poll.h>
#include <sys/socket.h>

#include "transport/preamble.h"
#include "transport/wait.h"

namespace migrate {

/// Reads a preamble, as the queue of the daemon does with many at a time.
inline Result<Preamble> receive_preamble(int fd, int timeout_ms) {
  const Deadline deadline(timeout_ms);
  std::array<std::byte, kPreambleBytes> bytes{};
  for (std::size_t filled = 0; filled < bytes.size();) {
    if (MIGRATE_TRY(wait_for(fd, POLLIN, deadline)) == 0) {
      return fail(make_error(ErrorCode::kRetry, "read preamble"));
    }
    const ssize_t count = ::recv(fd, bytes.data() + filled, bytes.size() - filled, 0);
    if (count <= 0) {
      return fail(make_error(ErrorCode::kPeerLost, "read preamble"));
    }
    filled += static_cast<std::size_t>(count);
  }
  return decode_preamble(bytes);
}

}  // namespace migrate
