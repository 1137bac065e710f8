#include "libmigrate/cell/cell.h"

#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "libmigrate/cell/internal_protocol.h"

namespace migrate {
namespace {

constexpr int kAdoptTimeoutMs = 5000;
constexpr int kEndTimeoutMs = 10000;
constexpr std::uint32_t kSpareDescriptors = 64;  // Room for descriptors opened after the draft.

struct SocketPair {
  UniqueFd ours;
  UniqueFd theirs;
};

Result<SocketPair> make_pair() {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
    return fail(system_error("make a socket pair"));
  }
  SocketPair pair{UniqueFd(ends[0]), UniqueFd(ends[1])};
  const int yes = 1;
  if (::setsockopt(pair.ours.get(), SOL_SOCKET, SO_PASSCRED, &yes, sizeof(yes)) != 0) {
    return fail(system_error("ask for credentials on a socket"));
  }
  return pair;
}

std::string offset_line(const char* clock, std::int64_t offset_ns) {
  std::int64_t seconds = offset_ns / kNanosecondsPerSecond;
  std::int64_t nanoseconds = offset_ns % kNanosecondsPerSecond;
  if (nanoseconds < 0) {
    nanoseconds += kNanosecondsPerSecond;
    --seconds;
  }
  return std::string(clock) + ' ' + std::to_string(seconds) + ' ' + std::to_string(nanoseconds) +
         '\n';
}

// The next children of this process live in a time namespace of their own.
Result<void> prepare_time(const CellOptions& options) {
  if (::unshare(CLONE_NEWTIME) != 0) {
    return fail(system_error("make a time namespace", {}, "the kernel needs CONFIG_TIME_NS"));
  }
  return write_file("/proc/self/timens_offsets",
                    offset_line("monotonic", options.monotonic_offset_ns) +
                        offset_line("boottime", options.boottime_offset_ns));
}

Error seed_error(const cell::Message& message) {
  return system_error_from(message.value, "make a cell", message.text.data());
}

}  // namespace

Result<Cell> Cell::create(const CellOptions& options) {
  Cell cell;
  cell.socket_path_ = options.socket_path;
  cell.listener_.emplace(MIGRATE_TRY(UnixListener::create(options.socket_path, 0600)));
  SocketPair to_init = MIGRATE_TRY(make_pair());
  SocketPair to_seed = MIGRATE_TRY(make_pair());
  cell.seed_descriptor_ = std::max(options.highest_descriptor + kSpareDescriptors, 128U);
  MIGRATE_TRY(prepare_time(options));
  int pidfd = -1;
  clone_args arguments{};
  arguments.flags = CLONE_NEWPID | CLONE_NEWNS | CLONE_PIDFD;
  if (options.network) {
    arguments.flags |= CLONE_NEWNET;
  }
  arguments.exit_signal = SIGCHLD;
  arguments.pidfd = reinterpret_cast<std::uintptr_t>(&pidfd);
  const long child = ::syscall(SYS_clone3, &arguments, sizeof(arguments));
  if (child < 0) {
    return fail(system_error("make the namespaces of a cell"));
  }
  if (child == 0) {
    cell::run_init({.worker_socket = to_init.theirs.get(),
                    .seed_socket = to_seed.theirs.get(),
                    .listener = cell.listener_->fd(),
                    .mark = options.session_file,
                    .process_id = options.process_id,
                    .seed_descriptor = cell.seed_descriptor_,
                    .terminal = options.terminal,
                    .login_user = options.login_user,
                    .has_network = options.network.has_value()});
  }
  cell.init_ = static_cast<pid_t>(child);
  cell.init_pidfd_.reset(pidfd);
  cell.init_socket_ = std::move(to_init.ours);
  cell.seed_socket_ = std::move(to_seed.ours);
  to_init.theirs.reset();
  to_seed.theirs.reset();
  auto ready = cell::receive_message(cell.seed_socket_.get(), true);
  if (!ready) {
    // The seed never came up; the init says why.
    const auto reason = cell::receive_message(cell.init_socket_.get(), true);
    cell.end();
    return fail(reason ? seed_error(reason->message) : ready.error());
  }
  if (ready->message.kind != cell::MessageKind::kReady) {
    cell.end();
    return fail(seed_error(ready->message));
  }
  if (options.terminal) {
    MIGRATE_TRY(cell.receive_terminal());
  }
  cell.seed_ = ready->sender;
  cell.seed_pidfd_ = MIGRATE_TRY(ProcessIdentity::of(cell.seed_).open());
  cell.process_id_ = options.process_id;
  cell.userfault_ = std::move(ready->descriptor);
  return cell;
}

// An init that is killed closes its files first, and kills what is in the cell after that
// (kernel/exit.c: exit_files() comes before zap_pid_ns_processes()). Whoever drops the pager in
// between lets the process run on pages of zeros. The init ends when all others have been reaped:
// the threads of a process that is parked here, by us, who trace them.
bool Cell::is_dead() const {
  constexpr int kLookMs = 20;
  const std::string threads = "/proc/" + std::to_string(seed_) + "/task";
  for (const std::string& thread : list_directory(threads).value_or(std::vector<std::string>())) {
    ::waitpid(static_cast<pid_t>(std::strtol(thread.c_str(), nullptr, 10)), nullptr,
              WNOHANG | __WALL);
  }
  pollfd polled{init_pidfd_.get(), POLLIN, 0};
  return !init_pidfd_.valid() || ::poll(&polled, 1, kLookMs) > 0;
}

Result<CellEvent> Cell::read_event() {
  auto received = cell::receive_message(init_socket_.get(), false);
  if (!received && received.error().code != ErrorCode::kRetry && !is_dead()) {
    return fail(make_error(ErrorCode::kRetry, "wait for the end of", "cell " + socket_path_));
  }
  if (!received) {
    return fail(std::move(received).error());
  }
  if (received->message.kind == cell::MessageKind::kStatus) {
    return CellEvent{CellEvent::Kind::kStatus, received->message.value};
  }
  return CellEvent{CellEvent::Kind::kEmpty, 0};
}

Result<Cell> Cell::adopt(const std::string& socket_path, const SessionMark& mark,
                         std::vector<KeptDescriptor>& kept) {
  Cell cell;
  cell.socket_path_ = socket_path;
  cell.init_ = mark.init;
  cell.seed_ = mark.process;
  cell.init_socket_ = MIGRATE_TRY(connect_unix(socket_path));
  cell.init_pidfd_ = MIGRATE_TRY(mark.init_identity().open());
  if (auto seed = mark.process_identity().open()) {
    cell.seed_pidfd_ = std::move(*seed);
  }
  for (;;) {
    pollfd polled{cell.init_socket_.get(), POLLIN, 0};
    if (::poll(&polled, 1, kAdoptTimeoutMs) <= 0) {
      return fail(make_error(ErrorCode::kRetry, "take over a cell", socket_path,
                             "its init does not answer; is it stopped?"));
    }
    auto received = MIGRATE_TRY(cell::receive_message(cell.init_socket_.get(), true));
    if (received.message.kind == cell::MessageKind::kKeptEnd) {
      return cell;
    }
    kept.push_back({received.message.kept, std::move(received.descriptor)});
  }
}

Cell Cell::gone(const std::string& socket_path, const SessionMark& mark) {
  Cell cell;
  cell.socket_path_ = socket_path;
  cell.seed_ = mark.process;
  return cell;
}

Result<void> Cell::keep(Kept what, int fd) {
  return cell::send_message(init_socket_.get(), {.kind = cell::MessageKind::kKeep, .kept = what},
                            std::span(&fd, 1));
}

Result<void> Cell::drop(Kept what) {
  return cell::send_message(init_socket_.get(), {.kind = cell::MessageKind::kDrop, .kept = what},
                            {});
}

Result<void> Cell::send_to_seed(std::span<const int> descriptors) {
  return cell::send_message(seed_socket_.get(), {.kind = cell::MessageKind::kKeep}, descriptors);
}

void Cell::signal_seed(int signal, siginfo_t* information) {
  if (seed_pidfd_.valid()) {
    send_signal(seed_pidfd_.get(), signal, information);
  }
}

// The kernel takes a signal of kill(2) from nobody but its sender: the init makes one, which holds
// the pipe until it has sent it. A process that is moved on afterwards takes the signal along.
void Cell::signal_seed_as(int signal, pid_t sender, uid_t user) {
  constexpr int kPatienceMs = 1000;  // The process's user may have stopped that one.
  const Kept who{.number = static_cast<std::uint32_t>(sender), .parent = user};
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
    signal_seed(signal);
    return;
  }
  const UniqueFd reader(ends[0]);
  UniqueFd writer(ends[1]);
  const int held = writer.get();
  if (!cell::send_message(init_socket_.get(),
                          {.kind = cell::MessageKind::kSignal, .value = signal, .kept = who},
                          std::span(&held, 1))) {
    signal_seed(signal);
    return;
  }
  writer.reset();
  pollfd polled{reader.get(), POLLIN, 0};
  if (::poll(&polled, 1, kPatienceMs) == 0) {
    log::warn("signal {} of pid {} was not sent in time", signal, sender);
  }
}

// By the folder of its init: of its mounts, and seen by no other process.
Result<PseudoTerminal> Cell::make_terminal(unsigned wanted) {
  const std::string folder = "/proc/" + std::to_string(init_) + "/root/dev/pts";
  struct stat theirs {};
  struct stat ours {};
  if (::stat(folder.c_str(), &theirs) != 0 ||
      (::stat("/dev/pts", &ours) == 0 && ours.st_dev == theirs.st_dev)) {
    return fail(make_error(ErrorCode::kNotFound, "make a terminal in", "a cell",
                           "it has no /dev/pts of its own"));
  }
  return make_pseudo_terminal(folder + "/ptmx", wanted);
}

Result<PseudoTerminal> Cell::take_terminal() {
  if (!terminal_.master.valid()) {
    return fail(make_error(ErrorCode::kNotFound, "take the terminal of", "a cell"));
  }
  return std::move(terminal_);
}

// Which the init has sent before it made the seed.
Result<void> Cell::receive_terminal() {
  for (UniqueFd* side : {&terminal_.master, &terminal_.slave}) {
    auto received = MIGRATE_TRY(cell::receive_message(init_socket_.get(), true));
    if (received.message.kind != cell::MessageKind::kTerminal) {
      return fail(seed_error(received.message));
    }
    *side = std::move(received.descriptor);
  }
  return {};
}

Result<void> Cell::set_foreground(bool in_foreground) {
  const cell::Message message{.kind = cell::MessageKind::kForeground,
                              .value = in_foreground ? 1 : 0};
  constexpr int kAnswerMs = 2000;
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) {
    return fail(system_error("make a pipe"));
  }
  const UniqueFd answers(ends[0]);
  UniqueFd answering(ends[1]);
  MIGRATE_TRY(cell::send_message(init_socket_.get(), message, std::span(&ends[1], 1)));
  answering.reset();
  pollfd polled{answers.get(), POLLIN, 0};
  int error = 0;
  if (::poll(&polled, 1, kAnswerMs) <= 0 ||
      ::read(answers.get(), &error, sizeof(error)) != static_cast<ssize_t>(sizeof(error))) {
    return fail(make_error(ErrorCode::kPeerLost, "ask the init of", "cell " + socket_path_));
  }
  return error == 0 ? Result<void>()
                    : fail(system_error_from(error, "give a terminal to", "cell " + socket_path_));
}

void Cell::end() {
  if (init_pidfd_.valid()) {
    send_signal(init_pidfd_.get(), SIGKILL);
  }
  ::unlink(socket_path_.c_str());
}

bool Cell::end_and_wait() {
  end();
  // The init of a PID namespace ends after all others in it were reaped: those that we trace, by
  // us.
  constexpr int kLookEveryMs = 5;
  pollfd polled{init_pidfd_.get(), POLLIN, 0};
  bool over = !init_pidfd_.valid();
  for (int waited_ms = 0; !over && waited_ms < kEndTimeoutMs; waited_ms += kLookEveryMs) {
    while (::waitpid(-1, nullptr, WNOHANG | __WALL) > 0) {
    }
    over = ::poll(&polled, 1, kLookEveryMs) > 0;
  }
  return over;
}

}  // namespace migrate
