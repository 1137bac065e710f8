#include "libmigrate/restore/process_state.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/prctl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "libmigrate/arch/arch.h"
#include "libmigrate/image/thread_settings.h"

#ifndef PR_TIMER_CREATE_RESTORE_IDS
// NOLINTNEXTLINE(readability-identifier-naming): the kernel's name, Linux 6.15
#define PR_TIMER_CREATE_RESTORE_IDS 77
#endif

namespace migrate {
namespace {

constexpr std::uint64_t kMicrosecondsPerSecond = 1'000'000;
constexpr std::uint32_t kMaxTimerSearch = 4096;
constexpr int kCapabilities = 64;
constexpr int kIoPriorityOfProcess = 1;  // IOPRIO_WHO_PROCESS, of a thread

std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text));
}

timeval to_timeval(std::uint64_t microseconds) {
  return {static_cast<time_t>(microseconds / kMicrosecondsPerSecond),
          static_cast<suseconds_t>(microseconds % kMicrosecondsPerSecond)};
}

prctl_mm_map memory_map(const wire::MemoryMap& memory) {
  prctl_mm_map map{};
  map.start_code = memory.start_code();
  map.end_code = memory.end_code();
  map.start_data = memory.start_data();
  map.end_data = memory.end_data();
  map.start_brk = memory.start_brk();
  map.brk = memory.brk();
  map.start_stack = memory.start_stack();
  map.arg_start = memory.arg_start();
  map.arg_end = memory.arg_end();
  map.env_start = memory.env_start();
  map.env_end = memory.env_end();
  return map;
}

// `executable`: an open descriptor in the process, or -1 to leave that as it is.
void script_memory_map(Script& script, const wire::ProcessImage& image, prctl_mm_map map,
                       int executable) {
  const std::string& auxv = image.memory().auxv();
  map.auxv = reinterpret_cast<__u64*>(script.put(bytes_of(auxv)));  // NOLINT
  map.auxv_size = static_cast<__u32>(auxv.size());
  map.exe_fd = static_cast<__u32>(executable);
  script.must("set the memory map", SYS_prctl,
              {PR_SET_MM, PR_SET_MM_MAP, script.put_value(map), sizeof(map), 0},
              image.executable().path());
}

bool is_default(std::span<const std::byte> action) {
  return std::ranges::all_of(action, [](std::byte byte) { return byte == std::byte{}; });
}

// To whom the kernel counts pending signals and timers (RLIMIT_SIGPENDING). The effective user, and
// with him all rights, stays as it is.
void script_real_user(Script& script, std::uint32_t from, std::uint32_t to) {
  constexpr std::uint64_t kSame = ~0ULL;
  if (from != to) {
    script.must("set the real user id", SYS_setresuid, {to, kSame, kSame});
  }
}

void script_timers(Script& script, const wire::ProcessImage& image) {
  std::uint64_t which = ITIMER_REAL;
  for (const wire::IntervalTimer& timer : image.interval_timers()) {
    // One that expired and waits for its pending signal to be taken shows no remaining time. It
    // expires at once, and its signal is pending already.
    const std::uint64_t value_us =
        timer.value_us() == 0 && timer.interval_us() != 0 ? 1 : timer.value_us();
    const itimerval value{to_timeval(timer.interval_us()), to_timeval(value_us)};
    if (value_us != 0) {
      script.must("set an interval timer", SYS_setitimer, {which, script.put_value(value), 0});
    }
    ++which;
  }
  if (image.posix_timers_size() == 0) {
    return;
  }
  // With it, timer_create takes the id that it finds at the result's address. Older kernels number
  // timers from 0, so that making and deleting timers reaches every id.
  const bool by_id = ::prctl(PR_TIMER_CREATE_RESTORE_IDS, 2, 0, 0, 0) >= 0;
  script.call(SYS_prctl, {PR_TIMER_CREATE_RESTORE_IDS, 1, 0, 0, 0});
  // So that none is passed over: the kernel lists the newest first.
  std::vector<wire::PosixTimer> ascending(image.posix_timers().begin(), image.posix_timers().end());
  std::ranges::sort(ascending, {}, &wire::PosixTimer::id);
  std::uint32_t next = 0;
  for (const wire::PosixTimer& timer : ascending) {
    sigevent event{};
    event.sigev_notify = timer.notify();
    event.sigev_signo = timer.signal();
    event.sigev_value.sival_ptr = reinterpret_cast<void*>(timer.signal_value());  // NOLINT
    event._sigev_un._tid = static_cast<pid_t>(timer.thread());
    const std::uint64_t event_at = script.put_value(event);
    const std::uint64_t id_at = script.put_value(timer.id());
    const auto clock = static_cast<std::uint64_t>(static_cast<std::int64_t>(timer.clock()));
    for (; !by_id && next < timer.id() && next < kMaxTimerSearch; ++next) {
      script.call(SYS_timer_create, {clock, event_at, id_at});
      script.call(SYS_timer_delete, {next});
    }
    ++next;
    script.must("make a POSIX timer", SYS_timer_create, {clock, event_at, id_at},
                "timer " + std::to_string(timer.id()));
    const itimerspec value{to_timespec(timer.interval_ns()), to_timespec(timer.value_ns())};
    script.must("set a POSIX timer", SYS_timer_settime, {timer.id(), 0, script.put_value(value), 0},
                "timer " + std::to_string(timer.id()));
  }
  script.call(SYS_prctl, {PR_TIMER_CREATE_RESTORE_IDS, 0, 0, 0, 0});
}

bool same(const wire::Credentials& a, const wire::Credentials& b) {
  return a.SerializeAsString() == b.SerializeAsString();
}

void script_capabilities(Script& script, std::uint64_t effective, std::uint64_t permitted,
                         std::uint64_t inheritable) {
  const __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  const auto low = [](std::uint64_t set) { return static_cast<__u32>(set); };
  const auto high = [](std::uint64_t set) { return static_cast<__u32>(set >> 32U); };
  const __user_cap_data_struct data[2] = {{low(effective), low(permitted), low(inheritable)},
                                          {high(effective), high(permitted), high(inheritable)}};
  script.must("set capabilities", SYS_capset, {script.put_value(header), script.put_value(data)});
}

// Each step before what forbids it: inheritable capabilities must be in the bounding set when they
// are taken on, a secure bit forbids ambient ones, and the change of user ids takes these, and all
// that are effective, away.
void script_credentials(Script& script, const wire::Credentials& wanted,
                        const wire::Credentials& own) {
  if (same(wanted, own)) {
    return;
  }
  const std::uint64_t all = own.capabilities_permitted();
  std::vector<gid_t> groups(wanted.groups().begin(), wanted.groups().end());
  script.must("keep capabilities", SYS_prctl, {PR_SET_KEEPCAPS, 1, 0, 0, 0});
  script.must("set groups", SYS_setgroups,
              {groups.size(), script.put(std::as_bytes(std::span(groups)))});
  script.must("set group ids", SYS_setresgid,
              {wanted.gid_real(), wanted.gid_effective(), wanted.gid_saved()});
  script.call(SYS_setfsgid, {wanted.gid_filesystem()});
  script_capabilities(script, all, all, wanted.capabilities_inheritable());
  for (int capability = 0; capability < kCapabilities; ++capability) {
    const std::uint64_t bit = 1ULL << static_cast<unsigned>(capability);
    if ((own.capabilities_bounding() & bit) != 0 && (wanted.capabilities_bounding() & bit) == 0) {
      script.must("drop a capability", SYS_prctl,
                  {PR_CAPBSET_DROP, static_cast<std::uint64_t>(capability), 0, 0, 0});
    }
  }
  script.must("set user ids", SYS_setresuid,
              {wanted.uid_real(), wanted.uid_effective(), wanted.uid_saved()});
  script.call(SYS_setfsuid, {wanted.uid_filesystem()});
  script_capabilities(script, all, all, wanted.capabilities_inheritable());
  for (int capability = 0; capability < kCapabilities; ++capability) {
    if ((wanted.capabilities_ambient() & (1ULL << static_cast<unsigned>(capability))) != 0) {
      script.must(
          "raise an ambient capability", SYS_prctl,
          {PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, static_cast<std::uint64_t>(capability), 0, 0});
    }
  }
  if (wanted.secure_bits() != own.secure_bits()) {
    script.must("set secure bits", SYS_prctl, {PR_SET_SECUREBITS, wanted.secure_bits(), 0, 0, 0});
  }
  script_capabilities(script, wanted.capabilities_effective(), wanted.capabilities_permitted(),
                      wanted.capabilities_inheritable());
  constexpr std::uint32_t kKeepCapabilities = 1U << 4U;  // SECBIT_KEEP_CAPS
  script.call(SYS_prctl, {PR_SET_KEEPCAPS,
                          (wanted.secure_bits() & kKeepCapabilities) != 0 ? 1U : 0U, 0, 0, 0});
  if (wanted.no_new_privileges()) {
    script.must("set no_new_privs", SYS_prctl, {PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0});
  }
}

// Last: what forbids a thread something is not for those who make it.
void script_settings(Script& script, const wire::Thread& thread) {
  for (std::size_t i = 0; i < kThreadSettings.size(); ++i) {
    const arch::Setting& setting = kThreadSettings[i];
    const int place = static_cast<int>(i);
    if (place >= thread.settings_size() || thread.settings(place) == setting.common_result) {
      continue;
    }
    const auto value = static_cast<std::uint64_t>(thread.settings(place));
    const auto& [call, arguments, count] = setting.setter;
    if (count == 1) {
      script.must("set", call, {arguments[0], value, 0, 0, 0}, setting.name);
    } else {
      script.must("set", call, {arguments[0], arguments[1], value, 0, 0}, setting.name);
    }
  }
}

void script_pending(Script& script, const google::protobuf::RepeatedPtrField<std::string>& signals,
                    std::uint64_t process, std::uint64_t thread) {
  for (const std::string& signal : signals) {
    siginfo_t information{};
    signal.copy(reinterpret_cast<char*>(&information), sizeof(information));
    const auto number = static_cast<std::uint64_t>(information.si_signo);
    const std::uint64_t address = script.put(bytes_of(signal));
    if (thread == 0) {
      script.must("queue a pending signal", SYS_rt_sigqueueinfo, {process, number, address});
    } else {
      script.must("queue a pending signal", SYS_rt_tgsigqueueinfo,
                  {process, thread, number, address});
    }
  }
}

// Only if it is another one: the kernel takes longer to set it than to tell.
void set_affinity(pid_t host_thread, const wire::Thread& thread) {
  std::string present(std::max<std::size_t>(thread.affinity().size(), sizeof(cpu_set_t)), '\0');
  const long length = ::syscall(SYS_sched_getaffinity, host_thread, present.size(), present.data());
  present.resize(static_cast<std::size_t>(std::max(length, 0L)));
  if (!thread.affinity().empty() && thread.affinity() != present &&
      ::syscall(SYS_sched_setaffinity, host_thread, thread.affinity().size(),
                thread.affinity().data()) != 0) {
    // A host with other CPUs: the thread may use all of them.
    log::debug(
        "{}",
        system_error("set the affinity of", "thread " + std::to_string(thread.id())).message());
  }
}

Result<void> set_policy(pid_t host_thread, const wire::Thread& thread,
                        const ProcessLimits& present) {
  const std::string name = "thread " + std::to_string(thread.id());
  const bool came_first = ::sched_getscheduler(host_thread) == SCHED_FIFO;
  sched_param parameter{};
  parameter.sched_priority = thread.priority();
  if (::sched_setscheduler(host_thread, thread.policy(), &parameter) != 0) {
    log::warn("{}", system_error("set the scheduling policy of", name).message());
    parameter.sched_priority = 0;
    if (came_first && ::sched_setscheduler(host_thread, SCHED_OTHER, &parameter) != 0) {
      return fail(system_error("give its ordinary scheduling back to", name));
    }
  }
  // A thread of real time has none, and none of what it set meanwhile.
  if (came_first && thread.timer_slack_ns() != 0 &&
      thread.timer_slack_ns() != present.timer_slack_ns) {
    const std::string path = "/proc/" + std::to_string(host_thread) + "/timerslack_ns";
    if (auto set = write_file(path, std::to_string(thread.timer_slack_ns())); !set) {
      log::warn("{}", set.error().message());
    }
  }
  return {};
}

}  // namespace

void script_draft_process(Script& script, const wire::ProcessImage& draft, int executable,
                          int directory) {
  // No command line and no environment yet: /proc/PID/cmdline and environ, which anybody may read
  // at any time, would make pages of zeros before the pager has that memory.
  prctl_mm_map map = memory_map(draft.memory());
  map.arg_end = map.arg_start;
  map.env_start = map.arg_start;
  map.env_end = map.arg_start;
  script_memory_map(script, draft, map, executable);
  script_enter(script, directory);
  const std::uint64_t action = script.put_value(std::array<std::byte, arch::kSignalActionBytes>{});
  for (std::uint64_t number = 1; number <= arch::kSignals; ++number) {
    script.call(SYS_rt_sigaction, {number, action, 0, 8});
  }
}

void script_enter(Script& script, int directory) {
  script.must("enter the working directory", SYS_fchdir, {static_cast<std::uint64_t>(directory)});
}

void script_process(Script& script, const wire::ProcessImage& image) {
  script.call(SYS_prctl, {PR_SET_DUMPABLE, 0, 0, 0, 0});  // Until Restorer::show_to_user().
  script_memory_map(script, image, memory_map(image.memory()), -1);
  script.call(SYS_umask, {image.umask()});
  script.call(SYS_personality, {image.personality()});
  auto actions = bytes_of(image.signal_actions());
  for (std::uint64_t number = 1; number <= arch::kSignals; ++number) {
    const auto action = actions.first(arch::kSignalActionBytes);
    actions = actions.subspan(action.size());
    if (number != SIGKILL && number != SIGSTOP && !is_default(action)) {
      script.must("set a signal action", SYS_rt_sigaction, {number, script.put(action), 0, 8},
                  "signal " + std::to_string(number));
    }
  }
  if (image.child_subreaper()) {
    script.must("become subreaper", SYS_prctl, {PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0});
  }
  if (image.thp_disabled() != 0) {
    constexpr std::uint64_t kFlags = ~std::uint64_t{1};  // "Except advised", Linux 6.18
    script.call(SYS_prctl, {PR_SET_THP_DISABLE, 1, 0, 0, 0});
    script.call(SYS_prctl, {PR_SET_THP_DISABLE, 1, image.thp_disabled() & kFlags, 0, 0});
  }
  if (image.merges_memory()) {
    script.must("merge memory", SYS_prctl, {kSetMemoryMerge, 1, 0, 0, 0});
  }
  // With several threads each takes the kernel a grace period of RCU, some milliseconds.
  for (std::uint32_t bit = 1; bit != 0 && bit <= image.barrier_registrations(); bit <<= 1U) {
    if ((image.barrier_registrations() & bit) != 0) {
      script.call(SYS_membarrier, {bit, 0, 0});
    }
  }
  if (image.locks_future_memory()) {
    script.must("lock memory mapped from now on", SYS_mlockall, {MCL_FUTURE});
  }
}

void script_timers_and_signals(Script& script, const wire::ProcessImage& image,
                               const wire::Credentials& own) {
  const bool counts = image.pending_signals_size() > 0 || image.posix_timers_size() > 0;
  const std::uint32_t user = counts ? image.threads(0).credentials().uid_real() : own.uid_real();
  script_real_user(script, own.uid_real(), user);
  script_pending(script, image.pending_signals(), image.process_id(), 0);
  script_timers(script, image);
  script_real_user(script, user, own.uid_real());
}

void script_thread(Script& script, const wire::ProcessImage& image, const wire::Thread& thread,
                   const wire::Credentials& own) {
  stack_t stack{};
  thread.alternate_stack().copy(reinterpret_cast<char*>(&stack), sizeof(stack));
  stack.ss_flags &= ~SS_ONSTACK;  // Follows from the stack pointer; not to be set.
  if ((stack.ss_flags & SS_DISABLE) == 0 && stack.ss_sp != nullptr) {
    script.must("set the alternate stack", SYS_sigaltstack, {script.put_value(stack), 0});
  }
  if (thread.robust_list() != 0) {
    script.must("set the robust list", SYS_set_robust_list,
                {thread.robust_list(), thread.robust_list_length()});
  }
  script.call(SYS_set_tid_address, {thread.clear_child_tid()});
  script.call(SYS_prctl, {PR_SET_NAME, script.put_string(thread.name()), 0, 0, 0});
  const std::uint32_t user =
      thread.pending_signals_size() > 0 ? thread.credentials().uid_real() : own.uid_real();
  script_real_user(script, own.uid_real(), user);
  script_pending(script, thread.pending_signals(), image.process_id(), thread.id());
  script_real_user(script, user, own.uid_real());
  script_credentials(script, thread.credentials(), own);
  if (thread.timer_slack_ns() != 0) {
    script.call(SYS_prctl, {PR_SET_TIMERSLACK, thread.timer_slack_ns(), 0, 0, 0});
  }
  if (thread.parent_death_signal() != 0) {
    script.must("set the parent death signal", SYS_prctl,
                {PR_SET_PDEATHSIG, thread.parent_death_signal(), 0, 0, 0});
  }
  if (thread.rseq_address() != 0) {
    script.must("register rseq", SYS_rseq,
                {thread.rseq_address(), thread.rseq_length(), 0, thread.rseq_signature()});
  }
  script_settings(script, thread);
}

void run_first(pid_t host_thread, const wire::ProcessImage& image) {
  const bool is_limited = image.resource_limits_size() > RLIMIT_RTTIME &&
                          image.resource_limits(RLIMIT_RTTIME).soft() != RLIM64_INFINITY;
  if (!is_limited && ::sched_getscheduler(host_thread) == SCHED_OTHER) {
    sched_param parameter{};
    parameter.sched_priority = ::sched_get_priority_min(SCHED_FIFO);
    static_cast<void>(::sched_setscheduler(host_thread, SCHED_FIFO, &parameter));
  }
}

Result<void> set_scheduling(pid_t host_thread, const wire::Thread& thread,
                            const ProcessLimits& present) {
  const std::string name = "thread " + std::to_string(thread.id());
  if (thread.priority() != 0 || ::sched_getscheduler(host_thread) != thread.policy()) {
    MIGRATE_TRY(set_policy(host_thread, thread, present));
  }
  if (thread.nice() != ::getpriority(PRIO_PROCESS, static_cast<id_t>(host_thread)) &&
      ::setpriority(PRIO_PROCESS, static_cast<id_t>(host_thread), thread.nice()) != 0) {
    log::warn("{}", system_error("set the nice value of", name).message());
  }
  if (thread.io_priority() != 0 &&
      ::syscall(SYS_ioprio_set, kIoPriorityOfProcess, host_thread, thread.io_priority()) != 0) {
    log::warn("{}", system_error("set the I/O priority of", name).message());
  }
  set_affinity(host_thread, thread);
  return {};
}

Result<ProcessLimits> read_limits(pid_t process) {
  ProcessLimits limits;
  int resource = 0;
  for (rlimit64& limit : limits.resources) {
    if (::prlimit64(process, static_cast<__rlimit_resource>(resource++), nullptr, &limit) != 0) {
      return fail(system_error("read a resource limit of", "process " + std::to_string(process)));
    }
  }
  std::istringstream text(
      MIGRATE_TRY(read_file("/proc/" + std::to_string(process) + "/oom_score_adj")));
  text >> limits.oom_score_adjust;
  if (const auto filter = read_file("/proc/" + std::to_string(process) + "/coredump_filter")) {
    std::istringstream(*filter) >> std::hex >> limits.coredump_filter;
  }
  if (const auto slack = read_file("/proc/" + std::to_string(process) + "/timerslack_ns")) {
    std::istringstream(*slack) >> limits.timer_slack_ns;
  }
  return limits;
}

void script_limits(Script& script, const wire::ProcessImage& image, const ProcessLimits& present) {
  std::uint64_t resource = 0;
  for (const wire::ResourceLimit& limit : image.resource_limits()) {
    if (resource >= present.resources.size()) {
      break;
    }
    const rlimit64 value{limit.soft(), limit.hard()};
    const rlimit64& before = present.resources[resource];
    if (before.rlim_cur != value.rlim_cur || before.rlim_max != value.rlim_max) {
      script.must("set resource limit", SYS_prlimit64, {0, resource, script.put_value(value), 0},
                  std::to_string(resource));
    }
    ++resource;
  }
}

void set_scores(pid_t process, const wire::ProcessImage& image, const ProcessLimits& present,
                bool trusted) {
  if (present.oom_score_adjust != image.oom_score_adjust()) {
    const std::string path = "/proc/" + std::to_string(process) + "/oom_score_adj";
    if (auto set = write_file(path, std::to_string(image.oom_score_adjust())); !set) {
      log::warn("{}", set.error().message());
    }
  }
  if (image.autogroup_nice() > 0 || (image.autogroup_nice() < 0 && trusted)) {
    // A seed begins a session, hence a group of its own. Missing where the kernel has no such
    // groups.
    const std::string path = "/proc/" + std::to_string(process) + "/autogroup";
    if (auto set = write_file(path, std::to_string(image.autogroup_nice())); !set) {
      log::warn("{}", set.error().message());
    }
  }
  if (present.coredump_filter != image.coredump_filter()) {
    const std::string path = "/proc/" + std::to_string(process) + "/coredump_filter";
    if (auto set = write_file(path, std::to_string(image.coredump_filter())); !set) {
      log::warn("{}", set.error().message());
    }
  }
}

Result<wire::Credentials> own_credentials() {
  wire::Credentials own;
  std::istringstream lines(MIGRATE_TRY(read_file("/proc/self/status")));
  for (std::string key; lines >> key;) {
    std::string rest;
    std::getline(lines, rest);
    std::istringstream values(rest);
    std::uint32_t ids[4] = {};
    std::uint64_t set = 0;
    if (key == "Uid:") {
      values >> ids[0] >> ids[1] >> ids[2] >> ids[3];
      own.set_uid_real(ids[0]);
      own.set_uid_effective(ids[1]);
      own.set_uid_saved(ids[2]);
      own.set_uid_filesystem(ids[3]);
    } else if (key == "Gid:") {
      values >> ids[0] >> ids[1] >> ids[2] >> ids[3];
      own.set_gid_real(ids[0]);
      own.set_gid_effective(ids[1]);
      own.set_gid_saved(ids[2]);
      own.set_gid_filesystem(ids[3]);
    } else if (key == "Groups:") {
      for (std::uint32_t group = 0; values >> group;) {
        own.add_groups(group);
      }
    } else if (key == "CapInh:" && values >> std::hex >> set) {
      own.set_capabilities_inheritable(set);
    } else if (key == "CapPrm:" && values >> std::hex >> set) {
      own.set_capabilities_permitted(set);
    } else if (key == "CapEff:" && values >> std::hex >> set) {
      own.set_capabilities_effective(set);
    } else if (key == "CapBnd:" && values >> std::hex >> set) {
      own.set_capabilities_bounding(set);
    } else if (key == "CapAmb:" && values >> std::hex >> set) {
      own.set_capabilities_ambient(set);
    } else if (key == "NoNewPrivs:") {
      own.set_no_new_privileges(rest.find('1') != std::string::npos);
    }
  }
  own.set_secure_bits(static_cast<std::uint32_t>(::prctl(PR_GET_SECUREBITS, 0, 0, 0, 0)));
  return own;
}

}  // namespace migrate
