#include "libmigrate/state/pid_lock.h"

#include <fcntl.h>

#include <cerrno>
#include <chrono>
#include <thread>

#include "base/file.h"

namespace migrate {
namespace {

// A worker that gives up a move says so before it has ended.
constexpr std::chrono::milliseconds kLockPatience{2000};
constexpr std::chrono::milliseconds kLockPause{5};

}  // namespace

Result<PidLock> PidLock::take(const std::string& state_directory, pid_t pid) {
  UniqueFd file =
      MIGRATE_TRY(open_file(state_directory + "/pids.lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  struct flock lock = {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = pid;
  lock.l_len = 1;
  const auto deadline = std::chrono::steady_clock::now() + kLockPatience;
  int locked = ::fcntl(file.get(), F_OFD_SETLK, &lock);
  while (locked != 0 && (errno == EAGAIN || errno == EACCES) &&
         std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(kLockPause);
    locked = ::fcntl(file.get(), F_OFD_SETLK, &lock);
  }
  if (locked == 0) {
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
