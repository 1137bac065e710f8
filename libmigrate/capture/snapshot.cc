#include "libmigrate/capture/snapshot.h"

#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "base/file.h"
#include "base/unique_fd.h"
#include "libmigrate/trace/script.h"

namespace migrate {
namespace {

std::string name_of(pid_t process) {
  return "process " + std::to_string(process);
}

/// A traced process that is killed is gone soon: to look for it now and then would take longer.
void end(pid_t process) {
  constexpr int kLongestMs = 1000;
  const UniqueFd ended(static_cast<int>(::syscall(SYS_pidfd_open, process, 0)));
  ::kill(process, SIGKILL);
  pollfd polled{ended.get(), POLLIN, 0};
  ::poll(&polled, ended.valid() ? 1 : 0, ended.valid() ? kLongestMs : 0);
  reap(process);
}

/// The helper at real-time priority while it makes the snapshot, which is an ordinary process and
/// gets what a child of the helper would have had: so the process does not wait for others that
/// compute while its page tables are copied. The helper may have it, as it ends with its tracer.
class Hurry {
 public:
  explicit Hurry(pid_t helper) {
    sched_param parameter{};
    parameter.sched_priority = ::sched_get_priority_min(SCHED_FIFO);
    slack_ = read_file(slack_of(helper)).value_or(std::string());
    hurries_ = ::syscall(SYS_sched_getattr, helper, before_.data(), before_.size(), 0) == 0 &&
               ::sched_setscheduler(helper, SCHED_FIFO | SCHED_RESET_ON_FORK, &parameter) == 0;
  }

  // A real-time process has no timer slack, nor have its children.
  Result<void> settle(pid_t snapshot) const {
    if (hurries_ && ::syscall(SYS_sched_setattr, snapshot, before_.data(), 0) != 0) {
      return fail(system_error("set the scheduling of", name_of(snapshot)));
    }
    return hurries_ && !slack_.empty() ? write_file(slack_of(snapshot), slack_) : Result<void>();
  }

 private:
  static std::string slack_of(pid_t process) {
    return "/proc/" + std::to_string(process) + "/timerslack_ns";
  }

  std::string slack_;
  alignas(8) std::array<std::byte, 128> before_{};  // a struct sched_attr, of whichever version
  bool hurries_ = false;                            // false without CAP_SYS_NICE
};

/// Waits for the first stop of a thread that a traced one has made.
Result<void> hold_newborn(pid_t process) {
  const Stop stop = MIGRATE_TRY(wait_stop(process));
  if (stop.event != PTRACE_EVENT_STOP) {
    return fail(make_error(ErrorCode::kSystem, "stop", name_of(process)));
  }
  return end_with_tracer(process);
}

}  // namespace

Snapshot::Snapshot(const FrozenProcess& frozen)
    : area_(frozen.area()),
      registers_(frozen.leader().registers),
      signal_mask_(frozen.leader().signal_mask),
      system_call_(frozen.system_call()) {}

Snapshot::Snapshot(Snapshot&& other) noexcept
    : area_(std::move(other.area_)),
      registers_(other.registers_),
      signal_mask_(other.signal_mask_),
      system_call_(other.system_call_),
      ties_(other.ties_),
      process_(std::exchange(other.process_, 0)),
      copies_(std::exchange(other.copies_, {})) {}

Snapshot::~Snapshot() {
  if (process_ != 0) {
    end(process_);
  }
  for (const pid_t copy : copies_) {
    end(copy);
  }
}

// A child of the process that shares its memory makes the copy and ends: so the copy is nobody's
// child, and the process waits for its page tables alone, once.
Result<Snapshot> Snapshot::take(const FrozenProcess& frozen) {
  if (frozen.threads().size() != 1) {
    return fail(make_error(ErrorCode::kRefused, "copy", name_of(frozen.process()),
                           "it has " + std::to_string(frozen.threads().size()) +
                               " threads, and a copy would have one of them alone"));
  }
  Snapshot snapshot(frozen);
  std::int64_t inner_id = 0;
  const pid_t helper = MIGRATE_TRY(snapshot.make_helper(frozen, inner_id));
  Hurry hurry(helper);
  auto made = snapshot.clone_from(helper, 0, 0);
  end(helper);
  snapshot.process_ = made.value_or(0);
  auto settled = made ? hurry.settle(*made) : Result<void>();
  Script reaps(frozen.area());
  reaps.call(SYS_wait4, {static_cast<std::uint64_t>(inner_id), 0, __WALL | WNOHANG, 0});
  MIGRATE_TRY(reaps.run(frozen.process(), frozen.leader().registers, frozen.leader().signal_mask));
  MIGRATE_TRY(std::move(made));
  MIGRATE_TRY(std::move(settled));
  return snapshot;
}

// Reads the ties, too, so that the process runs one script less. Without its tracer the helper
// would run on where the process does, on the same stack. Until it is tied to the tracer's life,
// the next call of the script, which the process comes to as well, ends it: the kernel writes the
// helper's id there before either of them goes on.
Result<pid_t> Snapshot::make_helper(const FrozenProcess& frozen, std::int64_t& inner_id) {
  constexpr std::uint64_t kNobody = 0x7fffffff;  // No process has it: pids are smaller.
  const pid_t thread = frozen.leader().host_id;
  ties_.rseq = MIGRATE_TRY(read_rseq(thread));
  if (::syscall(SYS_get_robust_list, thread, &ties_.robust_list, &ties_.robust_list_bytes) != 0) {
    return fail(system_error("read the robust list of", name_of(frozen.process())));
  }
  Script script(frozen.area());
  const std::uint64_t tid_address = script.reserve(sizeof ties_.tid_address);
  const std::uint64_t stack = script.reserve(sizeof ties_.alternate_stack);
  script.must("read the thread id address", SYS_prctl, {PR_GET_TID_ADDRESS, tid_address});
  script.must("read the alternate stack", SYS_sigaltstack, {0, stack});
  constexpr std::size_t kClone = 2;
  constexpr std::size_t kKill = 3;
  clone_args arguments{};
  arguments.flags = CLONE_VM | CLONE_PARENT_SETTID;
  arguments.parent_tid = script.address_of(kKill, 0);
  script.must("copy", SYS_clone3, {script.put_value(arguments), sizeof arguments},
              name_of(frozen.process()));
  script.call(SYS_kill, {kNobody, SIGKILL});
  script.at_birth([&](pid_t helper) -> Result<void> {
    MIGRATE_TRY(hold_newborn(helper));
    const std::int64_t harmless = SYS_getpid;
    return frozen.area().write(script.address_of(kKill), std::as_bytes(std::span(&harmless, 1)));
  });
  auto ran = script.run(thread, frozen.leader().registers, frozen.leader().signal_mask);
  if (!ran) {
    for (const pid_t helper : script.new_threads()) {
      end(helper);
    }
    return fail(std::move(ran).error());
  }
  ties_.tid_address = script.value<std::uint64_t>(tid_address);
  ties_.alternate_stack = script.value<stack_t>(stack);
  ties_.alternate_stack.ss_flags &= ~SS_ONSTACK;  // Follows from the stack pointer.
  inner_id = script.result(kClone);
  return script.new_threads().front();
}

ScriptArea Snapshot::area_in(pid_t process) const {
  return {.process = process, .address = area_.address, .length_bytes = area_.length_bytes};
}

// `process` has its copy of the memory, or shares it.
Result<pid_t> Snapshot::clone_from(pid_t process, std::uint64_t flags,
                                   std::uint64_t tid_address) const {
  ScriptArea area = area_in(process);
  MIGRATE_TRY(area.open_memory());
  Script script(area);
  clone_args arguments{};
  arguments.flags = flags;
  arguments.child_tid = tid_address;
  script.must("copy", SYS_clone3, {script.put_value(arguments), sizeof arguments},
              name_of(process));
  script.at_birth(hold_newborn);
  auto ran = script.run(process, registers_, signal_mask_);
  if (!ran) {
    for (const pid_t copy : script.new_threads()) {
      end(copy);
    }
    return fail(std::move(ran).error());
  }
  return script.new_threads().front();
}

// The parent of the snapshot is the init of the host, since the helper has ended.
Result<pid_t> Snapshot::copy() {
  const std::uint64_t flags =
      CLONE_PARENT | (ties_.tid_address != 0 ? CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID : 0);
  const pid_t copy = MIGRATE_TRY(clone_from(process_, flags, ties_.tid_address));
  copies_.push_back(copy);
  MIGRATE_TRY(finish(copy));
  return copy;
}

// From the middle of the script that made it to where the process was frozen.
Result<void> Snapshot::finish(pid_t copy) const {
  ScriptArea area = area_in(copy);
  MIGRATE_TRY(area.open_memory());
  Script script(area);
  if ((ties_.alternate_stack.ss_flags & SS_DISABLE) == 0) {
    script.must("set the alternate stack", SYS_sigaltstack,
                {script.put_value(ties_.alternate_stack), 0});
  }
  if (ties_.robust_list != 0) {
    script.must("set the robust list", SYS_set_robust_list,
                {ties_.robust_list, ties_.robust_list_bytes});
  }
  if (ties_.rseq.address != 0) {
    script.must("register rseq", SYS_rseq,
                {ties_.rseq.address, ties_.rseq.length, 0, ties_.rseq.signature});
  }
  MIGRATE_TRY(script.run(copy, registers_, signal_mask_));
  MIGRATE_TRY(unmap_script_area(area, copy, registers_, system_call_));
  MIGRATE_TRY(arch::write_registers(copy, registers_));
  return write_signal_mask(copy, signal_mask_);
}

Result<void> Snapshot::let_go(pid_t copy) {
  std::erase(copies_, copy);
  if (::kill(copy, SIGSTOP) != 0) {
    return fail(system_error("stop", name_of(copy)));
  }
  MIGRATE_TRY(detach(copy));
  return await_job_stop(copy);
}

}  // namespace migrate
