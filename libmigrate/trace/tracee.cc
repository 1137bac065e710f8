#include "libmigrate/trace/tracee.h"

#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <sstream>
#include <thread>

#include "base/file.h"
#include "base/log.h"
#include "libmigrate/proc/proc_text.h"

namespace migrate {
namespace {

std::string name_of(pid_t thread) {
  return "thread " + std::to_string(thread);
}

// glibc's ptrace() is variadic with an enum request; this gives it one shape.
long trace_call(unsigned request, pid_t thread, std::uint64_t address, const void* data) {
  return ::ptrace(static_cast<__ptrace_request>(request), thread, address, data);
}

const void* as_data(std::uint64_t value) {
  return reinterpret_cast<const void*>(value);  // NOLINT(performance-no-int-to-ptr): ptrace's ABI
}

Result<void> check(long result, const char* operation, pid_t thread) {
  if (result != 0) {
    return fail(system_error(operation, name_of(thread)));
  }
  return {};
}

// What waitpid() told of a thread.
Result<Stop> stop_of(pid_t thread, pid_t waited, int status) {
  if (waited < 0) {
    return fail(system_error("wait for", name_of(thread)));
  }
  if (!WIFSTOPPED(status)) {
    return fail(
        make_error(ErrorCode::kNotFound, "wait for the stop of",
                   name_of(thread) + " (it ended, wait status " + std::to_string(status) + ")"));
  }
  Stop stop{.signal = WSTOPSIG(status), .event = status >> 16, .group_stop = false};
  stop.group_stop = stop.event == PTRACE_EVENT_STOP && stop.signal != SIGTRAP;
  return stop;
}

}  // namespace

Result<void> seize(pid_t thread) {
  return check(
      trace_call(PTRACE_SEIZE, thread, 0, as_data(PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC)),
      "trace", thread);
}

Result<void> seize_for_life(pid_t thread) {
  return check(trace_call(PTRACE_SEIZE, thread, 0,
                          as_data(PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL)),
               "trace", thread);
}

Result<void> end_with_tracer(pid_t thread) {
  return check(trace_call(PTRACE_SETOPTIONS, thread, 0,
                          as_data(PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL)),
               "tie to its tracer's life", thread);
}

Result<void> keep_running(pid_t thread) {
  return check(trace_call(PTRACE_SETOPTIONS, thread, 0, as_data(PTRACE_O_TRACECLONE)),
               "release from its tracer's life", thread);
}

Result<void> outlive_tracer(pid_t thread) {
  return check(
      trace_call(PTRACE_SETOPTIONS, thread, 0, as_data(PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC)),
      "release from its tracer's life", thread);
}

Result<void> interrupt(pid_t thread) {
  return check(trace_call(PTRACE_INTERRUPT, thread, 0, nullptr), "interrupt", thread);
}

Result<void> resume(pid_t thread, int signal) {
  return check(trace_call(PTRACE_CONT, thread, 0, as_data(static_cast<std::uint64_t>(signal))),
               "resume", thread);
}

Result<void> resume_to_interrupt(pid_t thread, int signal) {
  MIGRATE_TRY(interrupt(thread));
  return resume(thread, signal);
}

Result<void> resume_to_call(pid_t thread) {
  return check(trace_call(PTRACE_SYSCALL, thread, 0, nullptr), "run to a system call in", thread);
}

Result<void> detach(pid_t thread, int signal) {
  return check(trace_call(PTRACE_DETACH, thread, 0, as_data(static_cast<std::uint64_t>(signal))),
               "stop tracing", thread);
}

Error end_impostor(pid_t process) {
  ::kill(process, SIGKILL);
  reap(process);
  Error error = make_error(ErrorCode::kNotFound, "hold", "process " + std::to_string(process),
                           "it was made to run another program meanwhile, and was ended");
  log::warn("{}", error.message());
  return error;
}

Result<Stop> wait_any_stop(pid_t thread) {
  int status = 0;
  pid_t waited = 0;
  do {
    waited = ::waitpid(thread, &status, __WALL);
  } while (waited < 0 && errno == EINTR);
  return stop_of(thread, waited, status);
}

Result<Stop> wait_any_stop_of_first(pid_t process) {
  const std::string threads = "/proc/" + std::to_string(process) + "/task/";
  for (;;) {
    siginfo_t told{};
    if (::waitid(P_ALL, 0, &told, WEXITED | WSTOPPED | WNOWAIT | __WALL) != 0) {
      if (errno == EINTR) {
        continue;
      }
      return wait_any_stop(process);
    }
    if (told.si_pid == process) {
      int status = 0;
      const pid_t waited = ::waitpid(process, &status, __WALL | WNOHANG);
      if (waited == 0) {
        continue;  // It was killed since.
      }
      return stop_of(process, waited, status);
    }
    const bool ended =
        told.si_code == CLD_EXITED || told.si_code == CLD_KILLED || told.si_code == CLD_DUMPED;
    if (!ended || ::access((threads + std::to_string(told.si_pid)).c_str(), F_OK) != 0) {
      return wait_any_stop(
          process);  // There is something else to be told of: no way to wait for both.
    }
    ::waitpid(told.si_pid, nullptr, __WALL | WNOHANG);
  }
}

// Who runs another program is told of by the process's id.
static Result<Stop> no_impostor(pid_t process, Result<Stop> stop) {
  if (stop && stop->event == PTRACE_EVENT_EXEC) {
    return fail(end_impostor(process));
  }
  return stop;
}

Result<Stop> wait_stop(pid_t thread) {
  return no_impostor(thread, wait_any_stop(thread));
}

Result<Stop> wait_stop_of_first(pid_t process) {
  return no_impostor(process, wait_any_stop_of_first(process));
}

void reap(pid_t thread) {
  constexpr int kLooks = 1000;
  constexpr auto kBetweenLooks = std::chrono::milliseconds(1);
  for (int look = 0; look < kLooks; ++look) {
    siginfo_t told{};
    const auto id = static_cast<id_t>(thread);
    if (::waitid(P_PID, id, &told, WEXITED | WNOHANG | __WALL) != 0 || told.si_pid != 0) {
      return;
    }
    std::this_thread::sleep_for(kBetweenLooks);
  }
}

bool has_ended(pid_t process) {
  const auto status = read_file("/proc/" + std::to_string(process) + "/status");
  return !status || status->find("\nState:\tZ") != std::string::npos ||
         status->find("\nState:\tX") != std::string::npos;
}

bool is_dying(pid_t process) {
  constexpr std::uint64_t kExiting = 4;  // PF_EXITING
  constexpr int kFlagsField = 9;
  const auto stat = read_file("/proc/" + std::to_string(process) + "/stat");
  if (!stat) {
    return false;
  }
  std::istringstream fields(stat->substr(stat->rfind(')') + 1));
  std::string state;
  fields >> state;
  std::uint64_t flags = 0;
  for (int field = 4; field <= kFlagsField; ++field) {
    std::int64_t value = 0;
    fields >> value;
    flags = static_cast<std::uint64_t>(value);
  }
  return state == "Z" || state == "X" || (flags & kExiting) != 0 || is_pending(process, SIGKILL);
}

bool is_ending(pid_t process) {
  return has_ended(process) || is_dying(process);
}

Result<std::uint64_t> read_signal_mask(pid_t thread) {
  std::uint64_t mask = 0;
  MIGRATE_TRY(check(trace_call(PTRACE_GETSIGMASK, thread, sizeof(mask), &mask),
                    "read the signal mask of", thread));
  return mask;
}

Result<void> write_signal_mask(pid_t thread, std::uint64_t mask) {
  return check(trace_call(PTRACE_SETSIGMASK, thread, sizeof(mask), &mask), "set the signal mask of",
               thread);
}

Result<void> await_job_stop(pid_t process) {
  constexpr int kLooks = 2000;
  const std::string tasks = "/proc/" + std::to_string(process) + "/task/";
  for (int look = 0; look < kLooks; ++look) {
    const std::vector<std::string> threads = MIGRATE_TRY(list_directory(tasks));
    const bool all_stopped = std::ranges::all_of(threads, [&tasks](const std::string& thread) {
      const auto status = read_file((tasks + thread).append("/status"));
      return status && status->find("State:\tT") != std::string::npos;
    });
    if (all_stopped) {
      return {};
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return fail(make_error(ErrorCode::kSystem, "stop", "process " + std::to_string(process)));
}

bool is_pending(pid_t thread, int signal) {
  const auto status = read_file("/proc/" + std::to_string(thread) + "/status");
  std::uint64_t pending = 0;
  for (const char* name : {"SigPnd:", "ShdPnd:"}) {
    pending |= status ? number_field(*status, name, 16) : 0;
  }
  return (pending >> (static_cast<unsigned>(signal) - 1U) & 1U) != 0;
}

Result<std::vector<std::string>> peek_signals(pid_t thread, bool shared) {
  constexpr std::int32_t kBatch = 16;
  std::array<siginfo_t, kBatch> batch{};
  std::vector<std::string> signals;
  for (;;) {
    __ptrace_peeksiginfo_args arguments{
        signals.size(), shared ? std::uint32_t{PTRACE_PEEKSIGINFO_SHARED} : 0U, kBatch};
    const long count = ::ptrace(PTRACE_PEEKSIGINFO, thread, &arguments, batch.data());
    if (count < 0) {
      return fail(system_error("read pending signals of", name_of(thread)));
    }
    for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
      signals.emplace_back(reinterpret_cast<const char*>(&batch[i]), sizeof(siginfo_t));
    }
    if (count < kBatch) {
      return signals;
    }
  }
}

Result<RseqConfiguration> read_rseq(pid_t thread) {
  __ptrace_rseq_configuration configuration{};
  const long length =
      trace_call(PTRACE_GET_RSEQ_CONFIGURATION, thread, sizeof(configuration), &configuration);
  if (length < 0) {
    return fail(system_error("read rseq of", name_of(thread)));
  }
  return RseqConfiguration{configuration.rseq_abi_pointer, configuration.rseq_abi_size,
                           configuration.signature, configuration.flags};
}

bool dispatches_calls(pid_t thread) {
  constexpr int kGetConfiguration = 0x4211;  // PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG
  struct Configuration {                     // ptrace_sud_config
    std::uint64_t mode;
    std::uint64_t selector;
    std::uint64_t offset;
    std::uint64_t length;
  } configuration{};
  const long status =
      ::syscall(SYS_ptrace, kGetConfiguration, thread, sizeof(configuration), &configuration);
  return status == 0 && configuration.mode != 0;
}

Result<void> read_memory(pid_t process, std::uint64_t address, std::span<std::byte> into) {
  const iovec local{into.data(), into.size()};
  const iovec remote{reinterpret_cast<void*>(address),
                     into.size()};  // NOLINT(performance-no-int-to-ptr)
  const ssize_t count = ::process_vm_readv(process, &local, 1, &remote, 1, 0);
  if (count != static_cast<ssize_t>(into.size())) {
    Error error = count < 0 ? system_error("read memory of", "process " + std::to_string(process))
                            : system_error_from(EFAULT, "read memory of",
                                                "process " + std::to_string(process));
    error.address = address;
    return fail(std::move(error));
  }
  return {};
}

Result<void> write_memory(pid_t process, std::uint64_t address, std::span<const std::byte> from) {
  const iovec local{const_cast<std::byte*>(from.data()), from.size()};  // readv's ABI lacks const
  const iovec remote{reinterpret_cast<void*>(address),
                     from.size()};  // NOLINT(performance-no-int-to-ptr)
  const ssize_t count = ::process_vm_writev(process, &local, 1, &remote, 1, 0);
  if (count != static_cast<ssize_t>(from.size())) {
    Error error = count < 0 ? system_error("write memory of", "process " + std::to_string(process))
                            : system_error_from(EFAULT, "write memory of",
                                                "process " + std::to_string(process));
    error.address = address;
    return fail(std::move(error));
  }
  return {};
}

}  // namespace migrate
