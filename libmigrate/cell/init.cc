// The two small processes inside a cell: the init, and the seed that becomes the moved process.
// Both are forks of the worker that never return to its code.
#include <fcntl.h>
#include <linux/keyctl.h>
#include <linux/sched.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <utility>
#include <vector>

#include "base/file.h"
#include "base/mapping.h"
#include "libmigrate/cell/internal_protocol.h"
#include "libmigrate/state/session_file.h"
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

// As a program expects them that was not forked by a worker, whose handlers and stack for them
// (base/crash_report.h) are not to be found here.
void reset_signals() {
  for (int signal = 1; signal < NSIG; ++signal) {
    ::signal(signal, SIG_DFL);
  }
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  stack_t no_stack{};
  no_stack.ss_flags = SS_DISABLE;
  ::sigaltstack(&no_stack, nullptr);
}

// Becomes the moved process: holds its id and a userfaultfd on its memory, and waits to be traced.
[[noreturn]] void run_seed(int socket, const InitOptions& options) {
  if (options.terminal) {
    ::setpgid(0, 0);
  } else {
    ::setsid();
  }
  // The daemon's own, if it has one, is of who started it. Who may not set it has told the source.
  static_cast<void>(write_file("/proc/self/loginuid", std::to_string(options.login_user)));
  // The daemon's session keyring holds what is root's. A kernel without keyrings has none to leave.
  static_cast<void>(::syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, nullptr));
  reset_signals();
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &files);
  }
  const int wanted = static_cast<int>(options.seed_descriptor);
  const int moved = ::fcntl(socket, F_DUPFD, wanted);
  if (moved != wanted) {
    give_up(socket,
            system_error("place the seed's socket", "descriptor " + std::to_string(wanted)));
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

// Whoever has others' rights by a program of theirs must not ask whom the process's home names: who
// they are (LDAP, NIS, Kerberos), or that an abstract name is root's.
Result<void> ignore_set_user_ids() {
  mount_attr wanted{};
  wanted.attr_set = MOUNT_ATTR_NOSUID;
  if (::mount_setattr(AT_FDCWD, "/", AT_RECURSIVE, &wanted, sizeof(wanted)) != 0) {
    return fail(system_error("ignore set-user-id programs in a cell", {},
                             "the kernel needs mount_setattr (5.12)"));
  }
  return {};
}

// Where that cannot be, the destination has refused processes with terminals, or will not take them
// in (CellControl::make_terminal).
void make_own_terminals() {
  static_cast<void>(::mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC,
                            "newinstance,ptmxmode=0666,mode=0600"));
}

Result<pid_t> start_seed(const InitOptions& options) {
  const pid_t wanted = static_cast<pid_t>(options.process_id);
  clone_args arguments{};
  arguments.exit_signal = SIGCHLD;
  arguments.set_tid = reinterpret_cast<std::uintptr_t>(&wanted);
  arguments.set_tid_size = 1;
  const long child = ::syscall(SYS_clone3, &arguments, sizeof(arguments));
  if (child < 0) {
    return fail(system_error("create", "process id " + std::to_string(options.process_id)));
  }
  if (child == 0) {
    run_seed(options.seed_socket, options);
  }
  return static_cast<pid_t>(child);
}

// The init of one cell.
class Init {
 public:
  explicit Init(const InitOptions& options)
      : worker_(options.worker_socket), listener_(options.listener) {}

  Result<void> start(const InitOptions& options);
  [[noreturn]] void run();

 private:
  bool read_worker();
  void signal_as(int signal, pid_t sender, uid_t user, UniqueFd held);
  Result<void> take_terminal(unsigned wanted) const;
  int give_terminal(bool to_process) const;
  void take_worker();
  void reap();
  void tell(const Message& message) const {
    static_cast<void>(send_message(worker_.get(), message, {}));
  }

  UniqueFd worker_;  // not valid while there is none
  UniqueFd listener_;
  UniqueFd signals_;
  Mapping mark_;
  pid_t moved_ = 0;
  std::vector<KeptDescriptor> kept_;
  bool committed_ = false;
  bool empty_ = false;
};

Result<void> Init::start(const InitOptions& options) {
  MIGRATE_TRY(make_own_proc());
  make_own_terminals();
  if (options.has_network) {
    MIGRATE_TRY(ignore_set_user_ids());
  }
  {
    // Opened anew: a mapping by the worker's descriptor would keep the worker's lock.
    const std::string path = "/proc/self/fd/" + std::to_string(options.mark);
    const UniqueFd own = MIGRATE_TRY(open_file(path, O_RDWR));
    mark_ = MIGRATE_TRY(Mapping::of_file(own.get(), sizeof(SessionMark)));
  }
  ::close(options.mark);
  sigset_t child_signal;
  sigemptyset(&child_signal);
  sigaddset(&child_signal, SIGCHLD);
  ::sigprocmask(SIG_BLOCK, &child_signal, nullptr);
  ::signal(SIGTTOU, SIG_IGN);  // It gives the terminal away from the background, as shells do.
  signals_.reset(::signalfd(-1, &child_signal, SFD_CLOEXEC | SFD_NONBLOCK));
  if (options.terminal) {  // Before: only who is forked later has the terminal of a session.
    MIGRATE_TRY(take_terminal(*options.terminal));
  }
  moved_ = MIGRATE_TRY(start_seed(options));
  ::close(options.seed_socket);
  return {};
}

// It lasts while somebody has it open: the worker, which gives us its slave to keep.
Result<void> Init::take_terminal(unsigned wanted) const {
  const PseudoTerminal pair = MIGRATE_TRY(make_pseudo_terminal("/dev/pts/ptmx", wanted));
  if (::ioctl(pair.slave.get(), TIOCSCTTY, 0) != 0) {
    return fail(system_error("take", "the terminal of a cell"));
  }
  for (const int fd : {pair.master.get(), pair.slave.get()}) {
    MIGRATE_TRY(send_message(worker_.get(), {.kind = MessageKind::kTerminal}, std::span(&fd, 1)));
  }
  return {};
}

// Returns an errno.
int Init::give_terminal(bool to_process) const {
  const UniqueFd terminal(::open("/dev/tty", O_RDWR | O_NONBLOCK | O_CLOEXEC));
  const pid_t group = to_process ? ::getpgid(moved_) : ::getpgrp();
  return terminal.valid() && ::ioctl(terminal.get(), TIOCSPGRP, &group) == 0 ? 0 : errno;
}

// True: there was a message, and may be another one.
bool Init::read_worker() {
  auto received = receive_message(worker_.get(), false);
  if (!received) {
    if (received.error().code == ErrorCode::kRetry) {
      return false;
    }
    if (!committed_) {
      ::_exit(1);  // The process never ran here, and the kernel ends what is in the cell.
    }
    worker_.reset();  // What it gave us stays: faults wait, they are not answered wrongly.
    return false;
  }
  const Kept what = received->message.kept;
  if (received->message.kind == MessageKind::kKeep) {
    committed_ = true;
    kept_.push_back({what, std::move(received->descriptor)});
  } else if (received->message.kind == MessageKind::kSignal) {
    signal_as(received->message.value, static_cast<pid_t>(what.number), what.parent,
              std::move(received->descriptor));
  } else if (received->message.kind == MessageKind::kForeground) {
    const int error = give_terminal(received->message.value != 0);
    static_cast<void>(::write(received->descriptor.get(), &error, sizeof(error)));
  } else if (received->message.kind == MessageKind::kDrop) {
    std::erase_if(kept_, [&](const KeptDescriptor& kept) {
      return kept.what == what || (what.number == 0 && kept.what.kind == what.kind);
    });
  }
  return true;
}

// A child that has the sender's pid and real user sends it; that its effective user stays root lets
// it. Whether the sender may, the worker has asked, who waits until nobody holds the
// descriptor any more.
void Init::signal_as(int signal, pid_t sender, uid_t user, UniqueFd /*held*/) {
  if (moved_ == 0) {
    return;
  }
  clone_args arguments{};
  arguments.exit_signal = SIGCHLD;
  arguments.set_tid = reinterpret_cast<std::uintptr_t>(&sender);
  arguments.set_tid_size = 1;
  constexpr int kTries = 100;
  constexpr useconds_t kPauseUs = 100;
  long child = ::syscall(SYS_clone3, &arguments, sizeof(arguments));
  // That of the sender's last signal may not have ended. Its end is not waited for: the process's
  // user can stop it.
  for (int tried = 0; child < 0 && errno == EEXIST && tried < kTries; ++tried) {
    ::usleep(kPauseUs);
    reap();
    child = ::syscall(SYS_clone3, &arguments, sizeof(arguments));
  }
  if (child == 0) {
    ::syscall(SYS_setresuid, user, 0, 0);
    ::kill(moved_, signal);
    ::_exit(0);
  }
  if (child < 0) {  // The pid is in use here.
    ::kill(moved_, signal);
  }
}

// A new worker takes over: it gets all that the last one left, and the news that it may not have
// heard.
void Init::take_worker() {
  UniqueFd fresh(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
  if (!fresh.valid()) {
    return;
  }
  while (worker_.valid() && read_worker()) {  // What it gave us last is the next one's, too.
  }
  worker_ = std::move(fresh);
  for (const KeptDescriptor& kept : kept_) {
    const int fd = kept.fd.get();
    static_cast<void>(send_message(worker_.get(), {.kind = MessageKind::kKept, .kept = kept.what},
                                   std::span(&fd, 1)));
  }
  tell({.kind = MessageKind::kKeptEnd});
  const auto& mark = *reinterpret_cast<const SessionMark*>(mark_.bytes().data());
  if (has_ended(mark.phase.guest())) {
    tell({.kind = MessageKind::kStatus, .value = mark.phase.wait_status()});
  }
  if (empty_) {
    tell({.kind = MessageKind::kEmpty});
  }
}

// Reports every change of state of the moved process and reaps the orphans. Of an end after which
// nothing is left it tells only that: how the process ended is in the mark.
void Init::reap() {
  std::optional<int> end;
  while (!empty_) {
    int status = 0;
    const pid_t child = ::waitpid(-1, &status, WNOHANG | WUNTRACED | WCONTINUED | __WALL);
    if (child < 0 && errno == ECHILD) {
      empty_ = true;
      tell({.kind = MessageKind::kEmpty});
      return;
    }
    if (child <= 0) {
      break;
    }
    if (child != moved_) {
      continue;
    }
    if (WIFEXITED(status) || WIFSIGNALED(status)) {
      reinterpret_cast<SessionMark*>(mark_.bytes().data())->phase.note_end(status);
      end = status;
    } else {
      tell({.kind = MessageKind::kStatus, .value = status});
    }
  }
  if (end) {
    tell({.kind = MessageKind::kStatus, .value = *end});
  }
}

void Init::run() {
  for (;;) {
    pollfd polled[3] = {
        {signals_.get(), POLLIN, 0}, {worker_.get(), POLLIN, 0}, {listener_.get(), POLLIN, 0}};
    ::poll(polled, 3, -1);
    if (polled[1].revents != 0) {
      read_worker();
    }
    if (polled[2].revents != 0) {
      take_worker();
    }
    signalfd_siginfo ignored{};
    while (::read(signals_.get(), &ignored, sizeof(ignored)) > 0) {
    }
    reap();
    if (empty_ && !committed_) {
      ::_exit(0);
    }
  }
}

}  // namespace

void run_init(const InitOptions& options) {
  ::setsid();
  ::prctl(PR_SET_NAME, kInitName);
  reset_signals();
  close_all_but({options.worker_socket, options.seed_socket, options.listener, options.mark});
  Init init(options);
  if (auto started = init.start(options); !started) {
    give_up(options.worker_socket, started.error());
  }
  init.run();
}

}  // namespace migrate::cell
