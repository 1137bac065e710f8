#include "libmigrate/rights/peer_process.h"

#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "base/clock.h"
#include "base/process_identity.h"
#include "transport/handoff.h"

namespace migrate {
namespace {

#ifndef SO_PEERPIDFD
// NOLINTNEXTLINE(readability-identifier-naming): the kernel's name
#define SO_PEERPIDFD 77  // Linux 6.5
#endif

/// When a process was started, on CLOCK_BOOTTIME, rounded down to what the kernel tells.
std::int64_t start_ns(pid_t pid) {
  const auto ticks = static_cast<std::int64_t>(start_time(pid));
  return ticks * (kNanosecondsPerSecond / ::sysconf(_SC_CLK_TCK));
}

}  // namespace

Result<PeerProcess> PeerProcess::of(int unix_fd, std::int64_t taken_ns) {
  const ucred who = MIGRATE_TRY(peer_credentials(unix_fd));
  int pidfd = -1;
  socklen_t length = sizeof pidfd;
  if (::getsockopt(unix_fd, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &length) != 0 &&
      errno == ENOPROTOOPT) {
    return by_pid(who.pid, taken_ns);
  }
  return PeerProcess(who.pid, UniqueFd(pidfd));
}

PeerProcess PeerProcess::by_pid(pid_t pid, std::int64_t taken_ns) {
  UniqueFd process(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  const std::int64_t start = start_ns(pid);  // Of the one that was opened, if that is there still.
  if (start == 0 || start > taken_ns) {
    process.reset();
  }
  return {pid, std::move(process)};
}

bool PeerProcess::is_there() const {
  return process_.valid() && ::syscall(SYS_pidfd_send_signal, process_.get(), 0, nullptr, 0) == 0;
}

Result<void> PeerProcess::must_be_there() const {
  return is_there() ? Result<void>()
                    : Result<void>(fail(make_error(ErrorCode::kNotFound, "answer",
                                                   "the process with pid " + std::to_string(pid_),
                                                   "it has ended; whoever asks of itself must ask "
                                                   "over a connection of its own")));
}

}  // namespace migrate
