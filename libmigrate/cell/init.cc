// The two small processes inside a cell: the init, and the seed that becomes the moved process.
// Both are forks of the worker that never return to its code.
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "libmigrate/cell/internal_protocol.h"
#include "pager/userfault.h"

namespace migrate::cell {
namespace {

[[noreturn]] void give_up(int socket, const Error& error) {
  Message message{.kind = MessageKind::kFailed, .value = error.sys_errno};
  const std::string text = error.message();
  std::copy_n(text.data(), std::min(text.size(), message.text.size() - 1), message.text.data());
  static_cast<void>(send_message(socket, message, {}));
  ::_exit(1);
}

void close_all_but(std::vector<int> kept) {
  std::sort(kept.begin(), kept.end());
  unsigned first = 0;
  for (const int fd : kept) {
    if (static_cast<unsigned>(fd) > first) {
      ::syscall(SYS_close_range, first, static_cast<unsigned>(fd) - 1, 0);
    }
    first = static_cast<unsigned>(fd) + 1;
  }
  ::syscall(SYS_close_range, first, ~0U, 0);
}

void unblock_and_default_signals() {
  for (int signal = 1; signal < NSIG; ++signal) {
    ::signal(signal, SIG_DFL);
  }
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
}

// Becomes the moved process: holds its id and a userfaultfd on its memory, and waits to be traced.
[[noreturn]] void run_seed(int socket, std::uint32_t wanted_descriptor) {
  ::setsid();
  unblock_and_default_signals();
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &files);
  }
  const int moved = ::fcntl(socket, F_DUPFD, static_cast<int>(wanted_descriptor));
  if (moved != static_cast<int>(wanted_descriptor)) {
    give_up(socket, system_error("place the seed's socket",
                                 "descriptor " + std::to_string(wanted_descriptor)));
  }
  close_all_but({moved});
  {
    auto userfault = Userfault::create_for_self();
    if (!userfault) {
      give_up(moved, userfault.error());
    }
    const int fd = userfault->fd();
    if (!send_message(moved, {.kind = MessageKind::kReady}, std::span(&fd, 1))) {
      ::_exit(1);
    }
  }
  for (;;) {
    ::pause();
  }
}

Result<void> make_own_proc() {
  if (::mount("none", "/", nullptr, MS_REC | MS_SLAVE, nullptr) != 0) {
    return fail(system_error("separate the mounts of a cell"));
  }
  if (::mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr) != 0) {
    return fail(system_error("mount", "/proc in a cell"));
  }
  return {};
}

Result<pid_t> start_seed(int seed_socket, std::uint32_t process_id, std::uint32_t seed_descriptor) {
  const pid_t wanted = static_cast<pid_t>(process_id);
  clone_args arguments{};
  arguments.exit_signal = SIGCHLD;
  arguments.set_tid = reinterpret_cast<std::uintptr_t>(&wanted);
  arguments.set_tid_size = 1;
  const long child = ::syscall(SYS_clone3, &arguments, sizeof(arguments));
  if (child < 0) {
    return fail(system_error("create", "process id " + std::to_string(process_id)));
  }
  if (child == 0) {
    run_seed(seed_socket, seed_descriptor);
  }
  return static_cast<pid_t>(child);
}

// Reports every change of state of the moved process and reaps the orphans. True: none is left.
bool reap(int worker_socket, pid_t moved) {
  for (;;) {
    int status = 0;
    const pid_t child = ::waitpid(-1, &status, WNOHANG | WUNTRACED | WCONTINUED | __WALL);
    if (child == 0) {
      return false;
    }
    if (child < 0) {
      return errno == ECHILD;
    }
    if (child == moved) {
      static_cast<void>(
          send_message(worker_socket, {.kind = MessageKind::kStatus, .value = status}, {}));
    }
  }
}

}  // namespace

void run_init(int worker_socket, int seed_socket, std::uint32_t process_id,
              std::uint32_t seed_descriptor) {
  ::setsid();
  ::prctl(PR_SET_NAME, "migrate-init");
  unblock_and_default_signals();
  close_all_but({worker_socket, seed_socket});
  if (auto mounted = make_own_proc(); !mounted) {
    give_up(worker_socket, mounted.error());
  }
  sigset_t child_signal;
  sigemptyset(&child_signal);
  sigaddset(&child_signal, SIGCHLD);
  ::sigprocmask(SIG_BLOCK, &child_signal, nullptr);
  const UniqueFd signals(::signalfd(-1, &child_signal, SFD_CLOEXEC | SFD_NONBLOCK));
  const auto moved = start_seed(seed_socket, process_id, seed_descriptor);
  if (!moved) {
    give_up(worker_socket, moved.error());
  }
  ::close(seed_socket);
  std::vector<UniqueFd> kept;
  bool worker_there = true;
  bool committed = false;
  for (;;) {
    pollfd polled[2] = {{signals.get(), POLLIN, 0}, {worker_there ? worker_socket : -1, POLLIN, 0}};
    ::poll(polled, 2, -1);
    if (polled[1].revents != 0) {
      auto received = receive_message(worker_socket, false);
      if (received && received->message.kind == MessageKind::kKeep) {
        committed = true;
        kept.push_back(std::move(received->descriptor));
      } else if (received && received->message.kind == MessageKind::kDrop) {
        kept.clear();
      } else if (!received && received.error().code != ErrorCode::kRetry) {
        if (!committed) {
          ::_exit(1);  // The process never ran here, and the kernel ends what is in the cell.
        }
        worker_there = false;  // What it gave us stays: faults wait, they are not answered wrongly.
      }
    }
    signalfd_siginfo ignored{};
    while (::read(signals.get(), &ignored, sizeof(ignored)) > 0) {
    }
    if (reap(worker_socket, *moved)) {
      static_cast<void>(send_message(worker_socket, {.kind = MessageKind::kEmpty}, {}));
      ::_exit(0);
    }
  }
}

}  // namespace migrate::cell
