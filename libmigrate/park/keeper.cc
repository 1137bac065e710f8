// What keeps the memory of a parked process when that has ended.
#include <linux/kcmp.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <charconv>
#include <chrono>
#include <thread>
#include <utility>
#include <vector>

#include "base/log.h"
#include "libmigrate/park/internal/parking.h"
#include "libmigrate/park/parked_process.h"
#include "libmigrate/proc/children.h"
#include "libmigrate/proc/proc_text.h"
#include "libmigrate/trace/tracee.h"

namespace migrate {
namespace {

constexpr const char* kKeeperName = "migrate-keeper";

// Of the user's processes this is one more, but that of the deputy which makes it is over.
void lift_process_limit(pid_t process) {
  const rlimit unlimited{RLIM_INFINITY, RLIM_INFINITY};
  static_cast<void>(::prlimit(process, RLIMIT_NPROC, &unlimited, nullptr));
}

}  // namespace

// The child goes on with the script, like the deputy: if the tracer dies before it has taken hold
// of it, both go the script's way back into the deputy's loop, and the next worker ends the child.
Result<ParkedProcess> ParkedProcess::make_keeper(const std::set<std::uint32_t>& kept) {
  lift_process_limit(process_);
  const arch::GeneralRegisters registers = MIGRATE_TRY(stop_leader());
  Script script(area_);
  script.must("make a keeper of the memory of", SYS_clone, {CLONE_VM},
              "process " + std::to_string(process_));
  auto made = run_in_leader(script);
  if (script.new_threads().empty()) {
    MIGRATE_TRY(std::move(made));
    return fail(make_error(ErrorCode::kSystem, "make a keeper of the memory of",
                           "process " + std::to_string(process_)));
  }
  const pid_t child = script.new_threads().front();
  ParkedProcess keeper(child, {child, area_.address, area_.length_bytes, area_.memory});
  if (made) {
    made = keeper.prepare_keeper(registers, kept);
  }
  if (!made) {
    keeper.end();
    return fail(std::move(made).error());
  }
  return keeper;
}

// From its first stop on to the idle loop.
Result<void> ParkedProcess::prepare_keeper(const arch::GeneralRegisters& registers,
                                           const std::set<std::uint32_t>& kept) {
  const Stop stop = MIGRATE_TRY(wait_stop(process_));
  if (stop.event != PTRACE_EVENT_STOP) {
    return fail(make_error(ErrorCode::kSystem, "stop", "process " + std::to_string(process_)));
  }
  threads_.push_back({process_, MIGRATE_TRY(inner_thread_id(process_, process_))});
  Script script(area_);
  std::uint32_t next = 0;
  for (const std::uint32_t descriptor : kept) {
    if (descriptor > next) {
      script.must("close descriptors", SYS_close_range, {next, descriptor - 1, 0});
    }
    next = descriptor + 1;
  }
  script.must("close descriptors", SYS_close_range, {next, ~0U, 0});
  script.call(SYS_chdir, {script.put_string("/")});
  script.call(SYS_prctl, {PR_SET_NAME, script.put_string(kKeeperName)});
  const arch::GeneralRegisters idle = idle_registers(registers, area_);
  MIGRATE_TRY(script.run(process_, idle, kAllSignals));
  MIGRATE_TRY(resume(process_));
  looping_ = true;
  return {};
}

void ParkedProcess::end_children(pid_t process) {
  for (const pid_t child : children_of(process).value_or(std::vector<pid_t>())) {
    if (::syscall(SYS_kcmp, process, child, KCMP_VM, 0, 0) != 0) {
      continue;  // Not one of ours: its user made it, and it may have become another's.
    }
    log::info("ends process {}, a keeper that was left of process {}", child, process);
    ::kill(child, SIGKILL);
  }
}

void ParkedProcess::end() {
  ::kill(process_, SIGKILL);
  for (std::size_t left = threads_.size(); left > 0; --left) {
    reap(threads_[left - 1].host_id);
  }
  looping_ = false;
}

Result<ParkedProcess> ParkedProcess::adopt_keeper(pid_t process, std::uint64_t area,
                                                  const SessionId& session, wire::Image& image) {
  ParkedProcess keeper(process, {process, area, 0});
  MIGRATE_TRY(keeper.read_record(session, image));
  MIGRATE_TRY(seize(process));
  MIGRATE_TRY(keeper.area_.open_memory());
  keeper.threads_.push_back({process, MIGRATE_TRY(inner_thread_id(process, process))});
  MIGRATE_TRY(keeper.await_idle());
  return keeper;
}

// Where a script of its last tracer has not come to its end yet, it does so by itself.
Result<void> ParkedProcess::await_idle() {
  constexpr int kLooks = 500;
  constexpr auto kPause = std::chrono::milliseconds(10);
  constexpr std::uint64_t kLoopBytes = 16;
  const std::uint64_t loop = area_.code() + arch::interpreter_code().idle_offset;
  for (int look = 0; look < kLooks; ++look) {
    MIGRATE_TRY(interrupt(process_));
    if (!MIGRATE_TRY(stop_seized(process_))) {
      return fail(make_error(ErrorCode::kNotFound, "take over",
                             "process " + std::to_string(process_), "it has ended"));
    }
    const auto place = arch::instruction_pointer(MIGRATE_TRY(arch::read_registers(process_)));
    MIGRATE_TRY(resume_loop());
    if (place >= loop && place - loop < kLoopBytes) {
      return {};
    }
    std::this_thread::sleep_for(kPause);
  }
  return fail(make_error(ErrorCode::kSystem, "take over", "process " + std::to_string(process_),
                         "it does not come to rest"));
}

}  // namespace migrate
