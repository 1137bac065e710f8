#include "tools/migratectl/start_guard.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <utility>

namespace migrate {
namespace {

/// In the guard, which is in a session of its own: what ends our group or our terminal's is not to
/// end it.
[[noreturn]] void guard(int alive, int child) {
  constexpr unsigned kAll = ~0U;
  ::setsid();
  // Of what we have open it keeps nothing open, such as the end of a pipe that somebody reads.
  const int first = ::dup2(alive, STDIN_FILENO);
  const int second = ::dup2(child, STDOUT_FILENO);
  ::syscall(SYS_close_range, STDERR_FILENO, kAll, 0);
  char let_go = 0;
  ssize_t count = -1;
  do {
    count = ::read(first, &let_go, sizeof let_go);
  } while (count < 0 && errno == EINTR);
  if (count != sizeof let_go) {
    ::syscall(SYS_pidfd_send_signal, second, SIGKILL, nullptr, 0);
  }
  ::_exit(0);
}

}  // namespace

Result<StartGuard> StartGuard::create(pid_t child) {
  const UniqueFd process(static_cast<int>(::syscall(SYS_pidfd_open, child, 0)));
  int ends[2] = {-1, -1};
  if (!process.valid() || ::pipe2(ends, O_CLOEXEC) != 0) {
    return fail(system_error("guard", "a program that is started"));
  }
  const UniqueFd reader(ends[0]);
  UniqueFd writer(ends[1]);
  const pid_t pid = ::fork();
  if (pid < 0) {
    return fail(system_error("guard", "a program that is started"));
  }
  if (pid == 0) {
    writer.reset();
    // Out of the way of the numbers that it takes.
    guard(::fcntl(reader.get(), F_DUPFD, 3), ::fcntl(process.get(), F_DUPFD, 3));
  }
  return StartGuard(pid, std::move(writer));
}

StartGuard::StartGuard(pid_t guard, UniqueFd alive) : guard_(guard), alive_(std::move(alive)) {}

StartGuard::StartGuard(StartGuard&& other) noexcept
    : guard_(std::exchange(other.guard_, 0)), alive_(std::move(other.alive_)) {}

StartGuard::~StartGuard() {
  end();
}

void StartGuard::let_go() {
  const char word = 1;
  if (guard_ > 0) {
    (void)!::write(alive_.get(), &word, sizeof word);
  }
  end();
}

void StartGuard::end() {
  alive_.reset();
  if (const pid_t guard = std::exchange(guard_, 0); guard > 0) {
    while (::waitpid(guard, nullptr, 0) < 0 && errno == EINTR) {
    }
  }
}

}  // namespace migrate
