#include "base/unique_fd.h"

#include <fcntl.h>
#include <unistd.h>

#include <string>

namespace migrate {

void UniqueFd::reset(int fd) {
  if (fd_ >= 0) {
    ::close(fd_);
  }
  fd_ = fd;
}

Result<UniqueFd> UniqueFd::duplicate() const {
  const int copy = ::fcntl(fd_, F_DUPFD_CLOEXEC, 3);
  if (copy < 0) {
    return fail(system_error("duplicate", "descriptor " + std::to_string(fd_)));
  }
  return UniqueFd(copy);
}

}  // namespace migrate
