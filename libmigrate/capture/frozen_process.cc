#include "libmigrate/capture/frozen_process.h"

#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <utility>

#include "base/file.h"
#include "base/log.h"
#include "libmigrate/capture/critical_section.h"
#include "libmigrate/proc/proc_text.h"
#include "libmigrate/trace/tracee.h"

namespace migrate {
namespace {

constexpr std::uint64_t kVdsoSearchBytes = 65536;
constexpr int kMostJobStops = 8;  // of a thread: whoever stops it again and again keeps it

std::string proc_path(pid_t process) {
  return "/proc/" + std::to_string(process);
}

// What read_state() does to a thread's registers, for one that it has not come to.
Result<void> forgive_stop(pid_t thread) {
  arch::GeneralRegisters registers = MIGRATE_TRY(arch::read_registers(thread));
  arch::forgive_stop(registers);
  return arch::write_registers(thread, registers);
}

}  // namespace

Result<std::uint64_t> find_system_call_in(pid_t process, std::uint64_t start, std::uint64_t end) {
  std::vector<std::byte> code(std::min(end - start, kVdsoSearchBytes));
  MIGRATE_TRY(read_memory(process, start, code));
  const std::ptrdiff_t offset = arch::find_system_call(code);
  if (offset < 0) {
    return fail(make_error(ErrorCode::kUnsupported, "find a system call instruction in the vDSO of",
                           "process " + std::to_string(process)));
  }
  return start + static_cast<std::uint64_t>(offset);
}

FrozenProcess::FrozenProcess(FrozenProcess&& other) noexcept
    : process_(other.process_),
      system_call_(other.system_call_),
      starts_(other.starts_),
      was_in_stop_(other.was_in_stop_),
      held_(std::exchange(other.held_, false)),
      threads_(std::move(other.threads_)),
      area_(std::exchange(other.area_, std::nullopt)) {}

FrozenProcess::~FrozenProcess() {
  if (held_) {
    if (auto thawed = thaw(); !thawed) {
      log::error("process {} could not be resumed whole: {}", process_, thawed.error().message());
    }
  }
}

std::vector<pid_t> FrozenProcess::host_ids() const {
  std::vector<pid_t> ids;
  ids.reserve(threads_.size());
  for (const FrozenThread& thread : threads_) {
    ids.push_back(thread.host_id);
  }
  return ids;
}

Result<FrozenProcess> FrozenProcess::freeze(pid_t process, std::uint64_t system_call,
                                            const ThreadIds& known, bool starts) {
  FrozenProcess frozen(process, system_call, starts);
  MIGRATE_TRY(frozen.stop_all());
  MIGRATE_TRY(frozen.read_state(known));
  return frozen;
}

FrozenThread& FrozenProcess::find(pid_t thread) {
  return *std::find_if(threads_.begin(), threads_.end(),
                       [&](const auto& other) { return other.host_id == thread; });
}

Result<Stop> FrozenProcess::await_stop(pid_t thread) const {
  return thread == process_ ? wait_any_stop_of_first(thread) : wait_any_stop(thread);
}

// True when the thread is stopped, false when it has ended.
Result<bool> FrozenProcess::stop_one(pid_t thread) {
  for (int job_stops = 0;;) {
    auto stopped = await_stop(thread);
    if (!stopped) {
      if (stopped.error().code == ErrorCode::kNotFound) {
        return false;
      }
      return fail(std::move(stopped).error());
    }
    if (stopped->group_stop && starts_ && job_stops++ < kMostJobStops) {
      // The thread goes from one stop into the other: it runs nothing of the program, and takes no
      // signal.
      was_in_stop_ = true;
      ::kill(process_, SIGCONT);
      MIGRATE_TRY(resume_to_interrupt(thread));
      continue;
    }
    if (stopped->group_stop) {
      find(thread).stopped = true;
      return fail(make_error(ErrorCode::kRefused, "freeze", "process " + std::to_string(process_),
                             "it is stopped by job control; send it SIGCONT first"));
    }
    if (stopped->event == PTRACE_EVENT_STOP) {
      return true;
    }
    // A signal on its way in is delivered (its handler's frame is made); a clone goes on. The
    // thread stops right after.
    MIGRATE_TRY(resume_to_interrupt(thread, stopped->event == 0 ? stopped->signal : 0));
  }
}

Result<void> FrozenProcess::stop_all() {
  std::vector<pid_t> known;
  std::vector<pid_t> fresh;
  const std::string path = proc_path(process_) + "/task";
  do {
    fresh.clear();
    for (const std::string& name : MIGRATE_TRY(list_directory(path))) {
      pid_t thread = 0;
      std::from_chars(name.data(), name.data() + name.size(), thread);
      if (std::find(known.begin(), known.end(), thread) != known.end()) {
        continue;
      }
      auto seized = starts_ ? seize_for_life(thread) : seize(thread);
      // EPERM: born of a traced thread, hence traced already. ESRCH: ended meanwhile.
      if (!seized && seized.error().sys_errno != EPERM) {
        if (seized.error().sys_errno == ESRCH && thread != process_) {
          continue;
        }
        return seized;
      }
      if (auto asked = interrupt(thread); !asked && !seized) {
        if (thread != process_ && has_ended(thread)) {
          continue;  // One that is ending cannot be traced any more.
        }
        return asked;  // Not traced by us: another tracer came first.
      }
      known.push_back(thread);
      fresh.push_back(thread);
      threads_.push_back({.host_id = thread});
    }
    std::reverse(fresh.begin(), fresh.end());  // The first thread last.
    for (const pid_t thread : fresh) {
      if (!MIGRATE_TRY(stop_one(thread))) {
        std::erase_if(threads_, [&](const auto& known_one) { return known_one.host_id == thread; });
        continue;
      }
      find(thread).stopped = true;
    }
  } while (!fresh.empty());
  return {};
}

Result<void> FrozenProcess::read_state(const ThreadIds& known) {
  const auto leader = std::find_if(threads_.begin(), threads_.end(),
                                   [&](const auto& thread) { return thread.host_id == process_; });
  if (leader == threads_.end()) {
    return fail(make_error(ErrorCode::kNotFound, "freeze", "process " + std::to_string(process_),
                           "it ended, or its first thread did"));
  }
  std::rotate(threads_.begin(), leader, leader + 1);
  for (FrozenThread& thread : threads_) {
    thread.registers = MIGRATE_TRY(arch::read_registers(thread.host_id));
    arch::forgive_stop(thread.registers);
    MIGRATE_TRY(leave_critical_section(process_, thread.host_id, thread.registers));
    thread.signal_mask = MIGRATE_TRY(read_signal_mask(thread.host_id));
    // Last: it says that all of the state was read.
    const auto before = std::ranges::find(known, thread.host_id, &ThreadIds::value_type::first);
    thread.id = before != known.end() ? before->second
                                      : MIGRATE_TRY(inner_thread_id(process_, thread.host_id));
  }
  return {};
}

// Where the instruction was looked for, something else may be since: a program that has the rights
// of another user would be sent into the middle of itself.
Result<void> FrozenProcess::open_area(std::uint64_t record_bytes) {
  std::array<std::byte, arch::kSystemCallBytes> code{};
  if (!read_memory(process_, system_call_, code) || arch::find_system_call(code) != 0) {
    return fail(make_error(ErrorCode::kRetry, "freeze", "process " + std::to_string(process_),
                           "it runs another program now (execve): inspect it anew"));
  }
  area_ = MIGRATE_TRY(map_script_area(process_, leader().host_id, leader().registers, system_call_,
                                      0, record_bytes));
  return {};
}

Result<void> FrozenProcess::close_area() {
  const auto area = std::exchange(area_, std::nullopt);
  return area ? unmap_script_area(*area, leader().host_id, leader().registers, system_call_)
              : Result<void>();
}

Result<void> FrozenProcess::put_back() {
  Result<void> outcome;
  const auto note = [&outcome](Result<void> step) {
    if (!step && outcome) {
      outcome = std::move(step);
    }
  };
  for (const FrozenThread& thread : threads_) {
    if (thread.stopped && thread.id != 0) {  // Its state was read, hence may have been changed.
      note(arch::write_registers(thread.host_id, thread.registers));
      note(write_signal_mask(thread.host_id, thread.signal_mask));
    }
  }
  return outcome;
}

Result<void> FrozenProcess::thaw() {
  held_ = false;
  Result<void> outcome;
  const auto note = [&outcome](Result<void> step) {
    if (!step && outcome) {
      outcome = std::move(step);
    }
  };
  note(close_area());
  note(put_back());
  if (was_in_stop_) {
    ::kill(process_, SIGSTOP);
  }
  for (auto at = threads_.rbegin(); at != threads_.rend(); ++at) {  // The first one last.
    const FrozenThread& thread = *at;
    // One that has not stopped yet: for the interrupt that it was sent. A signal on its way in
    // comes first and goes on in.
    const auto stop = thread.stopped ? Result<Stop>(Stop{}) : await_stop(thread.host_id);
    const bool by_us = thread.stopped || (stop && stop->event == PTRACE_EVENT_STOP);
    if (thread.id == 0 && by_us) {
      note(forgive_stop(thread.host_id));  // Its state was not read.
    }
    auto detached = detach(thread.host_id, stop && stop->event == 0 ? stop->signal : 0);
    if (!detached && detached.error().code == ErrorCode::kNotFound) {
      reap(thread.host_id);
    }
    note(std::move(detached));
  }
  if (was_in_stop_ && outcome) {
    note(await_job_stop(process_));  // Or it might meet the next freeze with SIGSTOP on its way in.
  }
  return outcome;
}

}  // namespace migrate
