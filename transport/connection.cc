#include "transport/connection.h"

#include <poll.h>

#include <cerrno>

#include "transport/wait.h"

namespace migrate {

Error socket_error(const char* operation, const std::string& peer) {
  const int number = errno;
  Error error = system_error_from(number, operation, peer);
  switch (number) {
    case EFAULT:
    case EBADF:
    case ENOTSOCK:
    case EINVAL:
    case ENOMEM:
    case ENOBUFS:
      error.code = ErrorCode::kSystem;
      break;
    default:
      error.code = ErrorCode::kPeerLost;
  }
  return error;
}

Result<void> wait_until_writable(int fd, const std::string& peer) {
  const short events = MIGRATE_TRY(wait_for(fd, POLLOUT | POLLRDHUP, Deadline(-1)));
  if ((events & POLLRDHUP) != 0) {
    return fail(make_error(ErrorCode::kPeerLost, "send to", peer));
  }
  return {};
}

}  // namespace migrate
