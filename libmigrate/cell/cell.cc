#include "libmigrate/cell/cell.h"

#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <string>

#include "base/file.h"
#include "base/log.h"
#include "libmigrate/cell/internal_protocol.h"

namespace migrate {
namespace {

constexpr std::int64_t kNanosecondsPerSecond = 1'000'000'000;
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
  SocketPair to_init = MIGRATE_TRY(make_pair());
  SocketPair to_seed = MIGRATE_TRY(make_pair());
  cell.seed_descriptor_ = std::max(options.highest_descriptor + kSpareDescriptors, 128U);
  MIGRATE_TRY(prepare_time(options));
  int pidfd = -1;
  clone_args arguments{};
  arguments.flags = CLONE_NEWPID | CLONE_NEWNS | CLONE_PIDFD;
  arguments.exit_signal = SIGCHLD;
  arguments.pidfd = reinterpret_cast<std::uintptr_t>(&pidfd);
  const long child = ::syscall(SYS_clone3, &arguments, sizeof(arguments));
  if (child < 0) {
    return fail(system_error("make the namespaces of a cell"));
  }
  if (child == 0) {
    cell::run_init(to_init.theirs.get(), to_seed.theirs.get(), options.process_id,
                   cell.seed_descriptor_);
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
  cell.seed_ = ready->sender;
  cell.process_id_ = options.process_id;
  cell.userfault_ = std::move(ready->descriptor);
  return cell;
}

Result<CellEvent> Cell::read_event() {
  const auto received = MIGRATE_TRY(cell::receive_message(init_socket_.get(), false));
  if (received.message.kind == cell::MessageKind::kStatus) {
    return CellEvent{CellEvent::Kind::kStatus, received.message.value};
  }
  return CellEvent{CellEvent::Kind::kEmpty, 0};
}

Result<void> Cell::keep(int fd) {
  return cell::send_message(init_socket_.get(), {.kind = cell::MessageKind::kKeep},
                            std::span(&fd, 1));
}

Result<void> Cell::drop_kept() {
  return cell::send_message(init_socket_.get(), {.kind = cell::MessageKind::kDrop}, {});
}

Result<void> Cell::send_to_seed(std::span<const int> descriptors) {
  return cell::send_message(seed_socket_.get(), {.kind = cell::MessageKind::kKeep}, descriptors);
}

void Cell::end() {
  if (init_pidfd_.valid()) {
    ::syscall(SYS_pidfd_send_signal, init_pidfd_.get(), SIGKILL, nullptr, 0);
  }
}

}  // namespace migrate
