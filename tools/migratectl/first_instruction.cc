#include "tools/migratectl/first_instruction.h"

#include <elf.h>
#include <fcntl.h>
#include <fmt/core.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/file.h"
#include "base/unique_fd.h"
#include "libmigrate/arch/arch.h"

namespace migrate {
namespace {

/// Ends the child unless it is let go.
class Child {
 public:
  explicit Child(pid_t pid) : pid_(pid) {}
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child() {
    if (pid_ > 0) {
      ::kill(pid_, SIGKILL);
      ::waitpid(pid_, nullptr, 0);
    }
  }
  pid_t pid() const { return pid_; }
  pid_t let_go() { return std::exchange(pid_, 0); }

  /// Its next stop. Errors: kRefused (it has ended).
  Result<int> await_stop(const std::string& name) {
    int status = 0;
    while (::waitpid(pid_, &status, WUNTRACED) < 0) {
      if (errno != EINTR) {
        return fail(system_error("wait for", name));
      }
    }
    if (WIFSTOPPED(status)) {
      return WSTOPSIG(status);
    }
    pid_ = 0;
    return fail(make_error(
        ErrorCode::kRefused, "start", name,
        WIFSIGNALED(status) ? fmt::format("it was ended by signal {}", WTERMSIG(status))
                            : fmt::format("it ended before its first instruction, with status {}",
                                          WEXITSTATUS(status))));
  }

 private:
  pid_t pid_;
};

/// In the child: nobody is there any more if it has none.
void await_guard(int descriptor) {
  char word = 0;
  ssize_t count = -1;
  do {
    count = ::read(descriptor, &word, sizeof word);
  } while (count < 0 && errno == EINTR);
  if (count != sizeof word) {
    ::_exit(127);
  }
}

[[noreturn]] void become(const std::vector<std::string>& command, const sigset_t& signal_mask,
                         int errors) {
  std::vector<char*> arguments;
  for (const std::string& argument : command) {
    arguments.push_back(const_cast<char*>(argument.c_str()));
  }
  arguments.push_back(nullptr);
  ::sigprocmask(SIG_SETMASK, &signal_mask, nullptr);
  if (::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) == 0) {
    ::execvp(arguments.front(), arguments.data());
  }
  const int why = errno;
  (void)!::write(errors, &why, sizeof why);
  ::_exit(127);
}

/// Where the program's own code begins, as the kernel has told it.
Result<std::uint64_t> entry_of(pid_t pid) {
  const std::string text = MIGRATE_TRY(read_file("/proc/" + std::to_string(pid) + "/auxv"));
  for (std::size_t at = 0; at + 2 * sizeof(std::uint64_t) <= text.size();
       at += 2 * sizeof(std::uint64_t)) {
    std::uint64_t pair[2] = {};
    std::memcpy(pair, text.data() + at, sizeof pair);
    if (pair[0] == AT_ENTRY) {
      return pair[1];
    }
  }
  return fail(make_error(ErrorCode::kUnsupported, "find where the program begins"));
}

Result<void> run_to_entry(Child& child, const std::string& name) {
  const std::uint64_t entry = MIGRATE_TRY(entry_of(child.pid()));
  if (arch::place_of(child.pid()) == entry) {
    return {};
  }
  if (!arch::stop_thread_at(child.pid(), entry)) {
    return fail(system_error("set a breakpoint in", name));
  }
  for (int signal = 0;;) {
    if (::ptrace(PTRACE_CONT, child.pid(), nullptr, static_cast<long>(signal)) != 0) {
      return fail(system_error("start", name));
    }
    signal = MIGRATE_TRY(child.await_stop(name));
    if (signal == SIGTRAP && arch::place_of(child.pid()) == entry) {
      break;
    }
  }
  return arch::stop_thread_at(child.pid(), 0) ? Result<void>()
                                              : fail(system_error("clear a breakpoint in", name));
}

}  // namespace

Result<StartedProgram> start_stopped(const std::vector<std::string>& command,
                                     const sigset_t& signal_mask) {
  const std::string& name = command.front();
  int ends[2] = {-1, -1};
  if (::pipe2(ends, O_CLOEXEC) != 0) {
    return fail(system_error("start", name));
  }
  const UniqueFd reader(ends[0]);
  UniqueFd writer(ends[1]);
  int guarded[2] = {-1, -1};
  if (::pipe2(guarded, O_CLOEXEC) != 0) {
    return fail(system_error("start", name));
  }
  const UniqueFd is_guarded(guarded[0]);
  UniqueFd guards(guarded[1]);
  const pid_t pid = ::fork();
  if (pid < 0) {
    return fail(system_error("start", name));
  }
  if (pid == 0) {
    guards.reset();
    await_guard(is_guarded.get());
    become(command, signal_mask, writer.get());
  }
  writer.reset();
  Child child(pid);
  StartGuard guard = MIGRATE_TRY(StartGuard::create(pid));
  (void)!::write(guards.get(), "", 1);
  int why = 0;
  if (::read(reader.get(), &why, sizeof why) == sizeof why) {
    Error error = system_error_from(why, "start", name);
    error.code = why == ENOENT ? ErrorCode::kNotFound : error.code;
    return fail(std::move(error));
  }
  MIGRATE_TRY(child.await_stop(name));
  ::ptrace(PTRACE_SETOPTIONS, child.pid(), nullptr, PTRACE_O_EXITKILL);
  MIGRATE_TRY(run_to_entry(child, name));
  if (::ptrace(PTRACE_DETACH, child.pid(), nullptr, static_cast<long>(SIGSTOP)) != 0) {
    return fail(system_error("stop", name));
  }
  MIGRATE_TRY(child.await_stop(name));
  return StartedProgram{child.let_go(), std::move(guard)};
}

}  // namespace migrate
