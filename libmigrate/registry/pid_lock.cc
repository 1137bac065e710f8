#include "libmigrate/registry/pid_lock.h"

#include <fcntl.h>

#include <cerrno>

#include "base/file.h"

namespace migrate {

Result<PidLock> PidLock::take(const std::string& state_directory, pid_t pid) {
  UniqueFd file =
      MIGRATE_TRY(open_file(state_directory + "/pids.lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  struct flock lock = {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = pid;
  lock.l_len = 1;
  if (::fcntl(file.get(), F_OFD_SETLK, &lock) == 0) {
    return PidLock(std::move(file));
  }
  const std::string name = "process " + std::to_string(pid);
  if (errno == EAGAIN || errno == EACCES) {
    return fail(make_error(ErrorCode::kRetry, "move", name,
                           "another request is just moving it; see migratectl ps"));
  }
  return fail(system_error("lock", name));
}

}  // namespace migrate
