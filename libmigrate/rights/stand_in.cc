#include "libmigrate/rights/stand_in.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/sched.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/file.h"

namespace migrate {
namespace {

constexpr const char* kName = "migrate-asks";
// A busy host may give the stand-in no processor for long. Whoever stops it waits for less.
constexpr int kAnswerMs = 30'000;
constexpr int kLookMs = 1000;

enum Question : int { kAttach, kRead, kSignal };

struct Inquiry {
  static constexpr std::size_t kMost = 256;
  int question = kAttach;
  pid_t process = 0;  // its first thread, which must be there; others may have ended
  std::uint32_t count = 0;
  std::array<pid_t, kMost> ids{};
};

struct Reply {
  int sys_errno = 0;  // 0: all of it is allowed
  pid_t id = 0;       // else whom it is about
};

// From here to the end of serve(): in the child, which is a copy of a process whose other threads
// may have held any lock. Nothing but system calls.

int try_attach(pid_t thread) {
  char byte = 0;
  iovec local{&byte, 1};
  // Nothing is ever mapped there: EFAULT comes after the check of rights.
  iovec remote{reinterpret_cast<void*>(~0UL), 1};
  // The flags are the seventh argument, which lies on the stack: as an int they would have a half
  // that nobody has written.
  const long count = ::syscall(SYS_process_vm_readv, thread, &local, 1UL, &remote, 1UL, 0UL);
  return count >= 0 || errno == EFAULT ? 0 : errno;
}

int try_read(pid_t thread) {
  std::array<char, 64> path{};
  static_cast<void>(std::snprintf(path.data(), path.size(), "/proc/%d/cwd", thread));
  std::array<char, 8> target{};
  return ::syscall(SYS_readlinkat, AT_FDCWD, path.data(), target.data(), target.size()) >= 0
             ? 0
             : errno;
}

int try_signal(pid_t process) {
  return ::syscall(SYS_kill, process, 0) == 0 ? 0 : errno;
}

// The raw calls change this thread only, which is all that there is.
bool become(const Asker& asker) {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  std::array<__user_cap_data_struct, 2> held{};
  if (::syscall(SYS_capget, &header, held.data()) != 0 ||
      ::syscall(SYS_setgroups, asker.groups.size(), asker.groups.data()) != 0 ||
      ::syscall(SYS_setresgid, asker.group, asker.group, asker.group) != 0 ||
      ::syscall(SYS_setresuid, asker.user, asker.user, asker.user) != 0) {
    return false;
  }
  for (std::size_t i = 0; i < held.size(); ++i) {
    const auto wanted = static_cast<std::uint32_t>(asker.capabilities >> (32 * i));
    held[i].effective = held[i].permitted & (asker.user == 0 ? wanted : 0);
    held[i].permitted = held[i].effective;
    held[i].inheritable = 0;
  }
  return ::syscall(SYS_capset, &header, held.data()) == 0 &&
         ::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0 && ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0;
}

void leave_all_but(int descriptor) {
  ::prctl(PR_SET_NAME, kName);
  for (int signal = 1; signal < NSIG; ++signal) {
    ::signal(signal, SIG_DFL);
  }
  if (descriptor > 0) {
    ::syscall(SYS_close_range, 0U, static_cast<unsigned>(descriptor) - 1, 0);
  }
  ::syscall(SYS_close_range, static_cast<unsigned>(descriptor) + 1, ~0U, 0);
}

[[noreturn]] void serve(int socket, const Asker& asker) {
  leave_all_but(socket);
  const bool ready = become(asker);
  const int problem = errno;
  Inquiry inquiry;
  while (::syscall(SYS_recvfrom, socket, &inquiry, sizeof(inquiry), 0, nullptr, nullptr) ==
         static_cast<long>(sizeof(inquiry))) {
    Reply reply{ready ? 0 : problem, 0};
    for (std::uint32_t i = 0; reply.sys_errno == 0 && i < inquiry.count; ++i) {
      const pid_t id = inquiry.ids[i];
      reply.sys_errno = inquiry.question == kAttach ? try_attach(id)
                        : inquiry.question == kRead ? try_read(id)
                                                    : try_signal(id);
      reply.id = id;
      if (reply.sys_errno == ESRCH && id != inquiry.process) {
        reply.sys_errno = 0;
      }
    }
    ::syscall(SYS_sendto, socket, &reply, sizeof(reply), MSG_NOSIGNAL, nullptr, 0UL);
  }
  ::syscall(SYS_exit_group, 0);
  __builtin_unreachable();
}

// Its exit status is what the kernel said.
[[noreturn]] void signal_and_end(int process, int signal, const Asker& asker) {
  leave_all_but(process);
  const bool sent =
      become(asker) && ::syscall(SYS_pidfd_send_signal, process, signal, nullptr, 0) == 0;
  ::syscall(SYS_exit_group, sent ? 0 : errno);
  __builtin_unreachable();
}

/// Forks; in the child the pidfd is not there. Errors: kSystem.
Result<UniqueFd> fork_as(const Asker& asker, const std::function<void()>& act) {
  int pidfd = -1;
  clone_args arguments{};
  // No signal at its end: whoever waits for other children hears nothing of it.
  arguments.flags = CLONE_PIDFD;
  arguments.pidfd = reinterpret_cast<std::uintptr_t>(&pidfd);
  const long child = ::syscall(SYS_clone3, &arguments, sizeof(arguments));
  if (child < 0) {
    return fail(system_error("fork a process that stands in for", asker.name()));
  }
  if (child == 0) {
    act();
  }
  return UniqueFd(pidfd);
}

/// Ends it, if it has not ended. Its exit status; nothing if a signal ended it.
std::optional<int> take_end(int process) {
  ::syscall(SYS_pidfd_send_signal, process, SIGKILL, nullptr, 0);
  siginfo_t end{};
  ::waitid(static_cast<idtype_t>(P_PIDFD), static_cast<id_t>(process), &end, WEXITED | __WALL);
  return end.si_code == CLD_EXITED ? std::optional(end.si_status) : std::nullopt;
}

std::vector<pid_t> threads_of(pid_t process) {
  std::vector<pid_t> threads;
  const auto names = list_directory("/proc/" + std::to_string(process) + "/task");
  for (const std::string& name : names.value_or(std::vector<std::string>())) {
    pid_t thread = 0;
    std::from_chars(name.data(), name.data() + name.size(), thread);
    threads.insert(thread == process ? threads.begin() : threads.end(), thread);
  }
  return threads;
}

/// Of what the kernel said to something that `asker` did to a process.
Result<void> outcome(int problem, pid_t process, const Asker& asker) {
  const std::string object = "process " + std::to_string(process) + " as " + asker.name();
  if (problem == ESRCH || problem == ENOENT) {
    return fail(make_error(ErrorCode::kNotFound, "use", object, "it has ended"));
  }
  if (problem == EPERM || problem == EACCES) {
    Error error = make_error(ErrorCode::kRefused, "use", object,
                             "the kernel would not allow it as that process is now: it is another "
                             "user's or group's, has more capabilities, may not be looked into "
                             "(PR_SET_DUMPABLE, set-id programs), or a security module forbids it; "
                             "ask its owner or root");
    error.sys_errno = problem;
    return fail(std::move(error));
  }
  if (problem != 0) {
    return fail(system_error_from(problem, "stand in for", asker.name()));
  }
  return {};
}

}  // namespace

Result<StandIn> StandIn::create(const Asker& asker) {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
    return fail(system_error("make a socket pair"));
  }
  UniqueFd ours(ends[0]);
  const UniqueFd theirs(ends[1]);
  UniqueFd process = MIGRATE_TRY(fork_as(asker, [&] { serve(theirs.get(), asker); }));
  return StandIn(asker, std::move(process), std::move(ours));
}

StandIn& StandIn::operator=(StandIn&& other) noexcept {
  end();
  asker_ = std::move(other.asker_);
  process_ = std::move(other.process_);
  socket_ = std::move(other.socket_);
  awaited_ = other.awaited_;
  return *this;
}

StandIn::~StandIn() {
  end();
}

void StandIn::end() {
  if (!process_.valid()) {
    return;
  }
  take_end(process_.get());
  process_.reset();
}

Result<void> StandIn::ask(int question, std::span<const pid_t> ids) {
  const pid_t process = ids.empty() ? 0 : ids.front();
  while (!ids.empty()) {
    Inquiry inquiry;
    inquiry.question = question;
    inquiry.process = process;
    inquiry.count = static_cast<std::uint32_t>(std::min(ids.size(), Inquiry::kMost));
    std::copy_n(ids.begin(), inquiry.count, inquiry.ids.begin());
    ids = ids.subspan(inquiry.count);
    if (::send(socket_.get(), &inquiry, sizeof(inquiry), MSG_NOSIGNAL) < 0) {
      return fail(system_error("ask the kernel in the name of", asker_.name()));
    }
    ++awaited_;
  }
  return {};
}

Result<void> StandIn::ask_attach(std::span<const pid_t> threads) {
  return ask(asker_.is_target ? kRead : kAttach, threads);
}

Result<void> StandIn::ask_signal(pid_t process) {
  return ask(kSignal, std::span(&process, 1));
}

bool StandIn::is_stopped() const {
  siginfo_t state{};
  return ::waitid(static_cast<idtype_t>(P_PIDFD), static_cast<id_t>(process_.get()), &state,
                  WSTOPPED | WNOHANG | WNOWAIT | __WALL) == 0 &&
         state.si_pid != 0;
}

bool StandIn::has_answer() const {
  pollfd polled{socket_.get(), POLLIN, 0};
  for (int waited_ms = 0; waited_ms < kAnswerMs; waited_ms += kLookMs) {
    if (::poll(&polled, 1, kLookMs) > 0) {
      return true;
    }
    if (is_stopped()) {
      return false;
    }
  }
  return false;
}

Result<void> StandIn::answer() {
  if (awaited_ == 0) {
    return fail(make_error(ErrorCode::kInvalid, "ask the kernel in the name of", asker_.name(),
                           "there is nothing to ask about"));
  }
  Reply first;
  for (; awaited_ > 0; --awaited_) {
    Reply reply;
    if (!has_answer() || ::recv(socket_.get(), &reply, sizeof(reply), MSG_DONTWAIT) !=
                             static_cast<ssize_t>(sizeof(reply))) {
      return fail(make_error(ErrorCode::kRefused, "ask the kernel in the name of", asker_.name(),
                             "there was no answer; was the process migrate-asks signalled?"));
    }
    first = first.sys_errno == 0 ? reply : first;
  }
  return outcome(first.sys_errno, first.id, asker_);
}

Result<void> may_attach(const Asker& asker, pid_t process) {
  StandIn stand_in = MIGRATE_TRY(StandIn::create(asker));
  const std::vector<pid_t> threads = threads_of(process);
  if (threads.empty()) {
    return fail(make_error(ErrorCode::kNotFound, "find", "process " + std::to_string(process),
                           "no process of this host has this pid"));
  }
  MIGRATE_TRY(stand_in.ask_attach(threads));
  return stand_in.answer();
}

Result<void> may_signal(const Asker& asker, pid_t process) {
  StandIn stand_in = MIGRATE_TRY(StandIn::create(asker));
  MIGRATE_TRY(stand_in.ask_signal(process));
  return stand_in.answer();
}

Result<void> send_signal_as(const Asker& asker, const ProcessIdentity& process, int signal) {
  const auto found = process.open();
  if (!found) {
    return found.error().code == ErrorCode::kNotFound ? outcome(ESRCH, process.pid, asker)
                                                      : Result<void>(fail(found.error()));
  }
  const UniqueFd& target = *found;
  const UniqueFd sender =
      MIGRATE_TRY(fork_as(asker, [&] { signal_and_end(target.get(), signal, asker); }));
  pollfd polled{sender.get(), POLLIN, 0};
  while (::poll(&polled, 1, kAnswerMs) < 0 && errno == EINTR) {
  }
  const std::optional<int> problem = take_end(sender.get());
  if (!problem) {
    return fail(make_error(ErrorCode::kRefused, "send a signal in the name of", asker.name(),
                           "the process migrate-asks, which sends it, was signalled itself; "
                           "nobody knows whether it was sent"));
  }
  return outcome(*problem, process.pid, asker);
}

}  // namespace migrate
