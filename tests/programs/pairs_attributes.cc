// Attributes of the process and its threads.
#include <linux/membarrier.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>

#include <array>

#include "tests/programs/pairs.h"

namespace pairs {
namespace {

constexpr std::uint64_t kLong = 100'000;  // seconds: no timer ends meanwhile

bool set_umask(Random& random) {
  ::umask(static_cast<mode_t>(random.below(0777)));
  return true;
}

bool lower_limit(Random& random) {
  // Not those that the program itself would reach.
  constexpr int kFree[] = {RLIMIT_CORE,       RLIMIT_STACK,  RLIMIT_RSS,   RLIMIT_MEMLOCK,
                           RLIMIT_SIGPENDING, RLIMIT_LOCKS,  RLIMIT_NICE,  RLIMIT_RTPRIO,
                           RLIMIT_RTTIME,     RLIMIT_NPROC,  RLIMIT_FSIZE, RLIMIT_CPU,
                           RLIMIT_MSGQUEUE,   RLIMIT_NOFILE, RLIMIT_AS,    RLIMIT_DATA};
  const auto resource = static_cast<__rlimit_resource_t>(one_of(random, kFree));
  rlimit limit{};
  ::getrlimit(resource, &limit);
  const bool large = resource == RLIMIT_AS || resource == RLIMIT_DATA || resource == RLIMIT_STACK;
  const bool some = resource == RLIMIT_CPU || resource == RLIMIT_FSIZE || resource == RLIMIT_NOFILE;
  const rlim_t least = large ? rlim_t{1} << 33U : some ? 1200 : 0;
  const rlim_t hard = std::min<rlim_t>(limit.rlim_max, least + random.below(5000));
  limit = {chance(random, 50) ? hard : std::min(hard, least + random.below(1000)),
           chance(random, 50) ? hard : limit.rlim_max};
  limit.rlim_cur = std::min(limit.rlim_cur, limit.rlim_max);
  return ::setrlimit(resource, &limit) == 0;
}

bool set_nice(Random& random) {
  return ::setpriority(PRIO_PROCESS, 0, static_cast<int>(random.below(40)) - 20) == 0;
}

bool set_scheduling(Random& random) {
  constexpr int kPolicies[] = {SCHED_OTHER, SCHED_BATCH, SCHED_IDLE, SCHED_FIFO, SCHED_RR};
  const int policy = one_of(random, kPolicies);
  sched_param parameters{};
  parameters.sched_priority =
      policy == SCHED_FIFO || policy == SCHED_RR ? static_cast<int>(1 + random.below(9)) : 0;
  const int reset = chance(random, 30) ? SCHED_RESET_ON_FORK : 0;
  return ::sched_setscheduler(0, policy | reset, &parameters) == 0;
}

bool set_deadline(Random& /*random*/) {
  struct {
    std::uint32_t size = 48, policy = 6;
    std::uint64_t flags = 0;
    std::uint32_t nice = 0, priority = 0;
    std::uint64_t runtime = 1'000'000, deadline = 100'000'000, period = 100'000'000;
  } attributes;
  return ::syscall(SYS_sched_setattr, 0, &attributes, 0) == 0;
}

bool set_io_priority(Random& random) {
  const auto value = ((1 + random.below(3)) << 13U) | random.below(8);
  return ::syscall(SYS_ioprio_set, 1, 0, value) == 0;
}

bool set_affinity(Random& random) {
  cpu_set_t all;
  ::sched_getaffinity(0, sizeof all, &all);
  const auto wanted = random.below(static_cast<std::uint64_t>(CPU_COUNT(&all)));
  cpu_set_t one;
  CPU_ZERO(&one);
  for (std::size_t cpu = 0, seen = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &all) && seen++ == wanted) {
      CPU_SET(cpu, &one);
    }
  }
  return ::sched_setaffinity(0, sizeof one, &one) == 0;
}

bool set_name(Random& random) {
  constexpr const char* kNames[] = {"", "a", "x) S 1 (", "a line\nend", "fifteen bytes.."};
  return ::prctl(PR_SET_NAME, one_of(random, kNames), 0, 0, 0) == 0;
}

/// Settings of prctl(2) with one argument.
template <int kSetting, unsigned long... kValues>
bool set_by_prctl(Random& random) {
  constexpr unsigned long values[] = {kValues...};
  return ::prctl(kSetting, one_of(random, values), 0, 0, 0) == 0;
}

bool disable_huge_pages(Random& random) {
  const unsigned long except_advised = chance(random, 40) ? 2 : 0;  // Linux 6.18
  return ::prctl(PR_SET_THP_DISABLE, 1, except_advised, 0, 0) == 0;
}

bool set_speculation(Random& random) {
  constexpr int kWays[] = {PR_SPEC_DISABLE, PR_SPEC_FORCE_DISABLE, PR_SPEC_ENABLE, 16};
  return ::prctl(PR_SET_SPECULATION_CTRL, random.below(3), one_of(random, kWays), 0, 0) == 0;
}

bool set_personality(Random& random) {
  constexpr int kFlags[] = {ADDR_NO_RANDOMIZE, ADDR_COMPAT_LAYOUT, STICKY_TIMEOUTS, SHORT_INODE,
                            UNAME26,           WHOLE_SECONDS};
  return ::personality(static_cast<unsigned long>(some_of(random, kFlags))) >= 0;
}

bool write_own(const char* name, const std::string& words) {
  const int fd = ::open((std::string("/proc/self/") + name).c_str(), O_WRONLY | O_CLOEXEC);
  const bool done = fd >= 0 && ::write(fd, words.data(), words.size()) > 0;
  const int error = errno;
  ::close(fd);
  errno = error;
  return done;
}

bool set_oom_score(Random& random) {
  return write_own("oom_score_adj", std::to_string(static_cast<int>(random.below(1200)) - 200));
}

bool set_coredump_filter(Random& random) {
  return write_own("coredump_filter", std::to_string(random.below(512)));
}

/// Of its own session: others are in the one that it comes from.
bool set_autogroup(Random& random) {
  if (::getsid(0) != ::getpid() && ::setsid() < 0) {
    return false;
  }
  return write_own("autogroup", std::to_string(static_cast<int>(random.below(20))));
}

bool begin_session(Random& /*random*/) {
  return ::setsid() >= 0;
}

bool begin_group(Random& /*random*/) {
  return ::setpgid(0, 0) == 0;
}

bool change_folder(Random& random) {
  const std::string path = new_path(chance(random, 20) ? "a folder\nof two lines" : "folder");
  return ::mkdir(path.c_str(), 0755) == 0 && ::chdir(path.c_str()) == 0;
}

bool change_to_removed_folder(Random& random) {
  const std::string path = new_path("removed");
  return ::mkdir(path.c_str(), 0755) == 0 && ::chdir(path.c_str()) == 0 &&
         (chance(random, 50) ? ::rmdir(path.c_str()) == 0
                             : ::rename(path.c_str(), (path + ".new").c_str()) == 0);
}

bool change_to_hosts_folder(Random& /*random*/) {
  const std::string path = "/tmp/pairs." + std::to_string(::getpid());
  return ::mkdir(path.c_str(), 0777) == 0 && ::chdir(path.c_str()) == 0;
}

bool set_memory_policy(Random& random) {
  constexpr int kModes[] = {1, 2, 3, 4};  // MPOL_PREFERRED, BIND, INTERLEAVE, LOCAL
  const int mode = one_of(random, kModes);
  const unsigned long node = 1;
  return ::syscall(SYS_set_mempolicy, mode, mode == 4 ? nullptr : &node, mode == 4 ? 0 : 8) == 0;
}

extern "C" void handle(int /*signal*/) {}
extern "C" void handle_with_details(int /*signal*/, siginfo_t* /*details*/, void* /*context*/) {}

bool handle_signal(Random& random) {
  constexpr int kFlags[] = {SA_RESTART, SA_NODEFER, SA_NOCLDSTOP, SA_NOCLDWAIT, SA_ONSTACK};
  struct sigaction action {};
  action.sa_flags = some_of(random, kFlags) | (chance(random, 10) ? SA_RESETHAND : 0);
  if (chance(random, 30)) {
    action.sa_handler = SIG_IGN;
  } else if (chance(random, 50)) {
    action.sa_sigaction = handle_with_details;
    action.sa_flags |= SA_SIGINFO;
  } else {
    action.sa_handler = handle;
  }
  sigemptyset(&action.sa_mask);
  sigaddset(&action.sa_mask, static_cast<int>(1 + random.below(60)));
  constexpr int kSignals[] = {SIGHUP, SIGINT,  SIGQUIT, SIGUSR1, SIGUSR2,  SIGPIPE, SIGTERM,
                              SIGIO,  SIGTTIN, SIGTTOU, SIGTSTP, SIGWINCH, 40,      64};
  return ::sigaction(one_of(random, kSignals), &action, nullptr) == 0;
}

bool block_signals(Random& random) {
  sigset_t set;
  sigemptyset(&set);
  for (int i = 0; i < 5; ++i) {
    sigaddset(&set, static_cast<int>(1 + random.below(64)));
  }
  return ::pthread_sigmask(SIG_BLOCK, &set, nullptr) == 0;
}

bool has_threads = false;  // other than the first

bool have_pending_signals(Random& random) {
  constexpr int kSignals[] = {SIGUSR1, SIGUSR2, SIGWINCH, 35, 36, 63};
  const int signal = one_of(random, kSignals);
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, signal);
  ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
  sigval value{};
  value.sival_int = static_cast<int>(random.below(1000));
  bool sent = false;
  for (std::uint64_t count = 1 + random.below(4); count > 0; --count) {
    // Another thread that does not block it would take one of the process.
    const bool of_process = chance(random, 50) && ::gettid() == ::getpid() && !has_threads;
    sent =
        (of_process ? ::sigqueue(::getpid(), signal, value)
                    : static_cast<int>(::syscall(SYS_tgkill, ::getpid(), ::gettid(), signal))) == 0;
  }
  return sent;
}

bool set_signal_stack(Random& random) {
  static std::array<char, 65536> memory;
  stack_t stack{};
  stack.ss_sp = memory.data();
  stack.ss_size = memory.size();
  stack.ss_flags = chance(random, 30) ? static_cast<int>(1U << 31U) : 0;  // SS_AUTODISARM
  return ::sigaltstack(&stack, nullptr) == 0;
}

bool set_interval_timer(Random& random) {
  itimerval timer{};
  timer.it_value.tv_sec = static_cast<time_t>(kLong + random.below(kLong));
  timer.it_interval.tv_sec = static_cast<time_t>(random.below(100));
  timer.it_interval.tv_usec = static_cast<suseconds_t>(random.below(1'000'000));
  constexpr __itimer_which_t kKinds[] = {ITIMER_REAL, ITIMER_VIRTUAL, ITIMER_PROF};
  return ::setitimer(one_of(random, kKinds), &timer, nullptr) == 0;
}

bool make_timer(Random& random) {
  constexpr clockid_t kClocks[] = {
      CLOCK_REALTIME,          CLOCK_MONOTONIC, CLOCK_BOOTTIME,       CLOCK_PROCESS_CPUTIME_ID,
      CLOCK_THREAD_CPUTIME_ID, CLOCK_TAI,       CLOCK_REALTIME_ALARM, CLOCK_BOOTTIME_ALARM};
  struct sigevent event {};
  constexpr int kNotify[] = {SIGEV_NONE, SIGEV_SIGNAL, SIGEV_THREAD_ID};
  event.sigev_notify = one_of(random, kNotify);
  event.sigev_signo = 40;
  event.sigev_value.sival_int = static_cast<int>(random.below(1000));
  event._sigev_un._tid = ::gettid();
  int id = 0;
  const clockid_t clock = one_of(random, kClocks);
  if (::syscall(SYS_timer_create, clock, chance(random, 20) ? nullptr : &event, &id) != 0) {
    return false;
  }
  itimerspec timer{};
  timer.it_value.tv_sec = static_cast<time_t>(kLong + random.below(kLong));
  timer.it_interval.tv_nsec = static_cast<long>(random.below(1'000'000'000));
  int flags = 0;
  if (chance(random, 30)) {
    timespec now{};
    ::clock_gettime(clock, &now);
    timer.it_value.tv_sec += now.tv_sec;
    flags = TIMER_ABSTIME;
  }
  return chance(random, 20) || ::syscall(SYS_timer_settime, id, flags, &timer, nullptr) == 0;
}

bool register_barriers(Random& random) {
  constexpr int kCommands[] = {MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED,
                               MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED,
                               MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE,
                               MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_RSEQ};
  return ::syscall(SYS_membarrier, one_of(random, kCommands), 0, 0) == 0;
}

bool lock_memory(Random& random) {
  // What is only reserved would be filled.
  const std::string sizes = check::read_text("/proc/self/statm");
  if (std::strtoull(sizes.c_str(), nullptr, 10) > (std::uint64_t{1} << 30U) / 4096) {
    errno = ENOMEM;
    return false;
  }
  constexpr int kFlags[] = {MCL_CURRENT, MCL_FUTURE, MCL_CURRENT | MCL_FUTURE};
  return ::mlockall(one_of(random, kFlags)) == 0;
}

bool forbid_cpuid(Random& /*random*/) {
  constexpr int kSetCpuid = 0x1012;
  return ::syscall(SYS_arch_prctl, kSetCpuid, 0) == 0;
}

bool set_segment(Random& random) {
  const std::array<std::uint32_t, 4> segment{static_cast<std::uint32_t>(random.below(4)), 0,
                                             0xfffff, 0x51};
  return ::syscall(SYS_modify_ldt, 1, &segment, sizeof segment) == 0;
}

bool dispatch_calls(Random& /*random*/) {
  static char selector = 0;  // SYSCALL_DISPATCH_FILTER_ALLOW
  return ::prctl(PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_ON, 0, 0, &selector) == 0;
}

bool set_robust_list(Random& /*random*/) {
  static std::array<void*, 3> head{head.data(), nullptr, nullptr};
  return ::syscall(SYS_set_robust_list, head.data(), sizeof head) == 0;
}

std::atomic<int> threads_begun{0};

extern "C" void* sleep_for_ever(void* /*argument*/) {
  ++threads_begun;
  for (;;) {
    check::sleep_ns(1000 * check::kSecond);
  }
}

extern "C" void* wait_for_event(void* argument) {
  const int event = *static_cast<int*>(argument);
  ++threads_begun;
  for (std::uint64_t value = 0;;) {
    static_cast<void>(::read(event, &value, sizeof value));
  }
}

struct ThreadWish {
  Random random;
  std::atomic<bool> done;
};

extern "C" void* change_and_sleep(void* argument) {
  auto& wish = *static_cast<ThreadWish*>(argument);
  Random& random = wish.random;
  bool (*const changes[])(Random&) = {
      set_nice, set_scheduling, set_io_priority, set_affinity, set_name, block_signals,
      set_by_prctl<PR_SET_TIMERSLACK, 1, 77777>, set_signal_stack, have_pending_signals,
      // It reads no clock, as the first thread does.
      set_by_prctl<PR_SET_TSC, PR_TSC_SIGSEGV>};
  for (int i = 0; i < 3; ++i) {
    one_of(random, changes)(random);
  }
  --threads_begun;  // It is counted again.
  wish.done = true;
  return sleep_for_ever(nullptr);
}

bool start(void* (*body)(void*), void* argument) {
  pthread_t thread;
  const int error = ::pthread_create(&thread, nullptr, body, argument);
  has_threads = true;
  errno = error;
  return error == 0;
}

bool start_threads(Random& random) {
  static const int event = ::eventfd(0, EFD_CLOEXEC);
  const int wanted = threads_begun + 1 + static_cast<int>(random.below(5));
  for (int count = threads_begun; count < wanted; ++count) {
    if (!(chance(random, 50) ? start(sleep_for_ever, nullptr)
                             : start(wait_for_event, const_cast<int*>(&event)))) {
      return false;
    }
  }
  while (threads_begun < wanted) {
    check::sleep_ns(check::kMillisecond);
  }
  return true;
}

bool start_thread_of_its_own(Random& random) {
  static ThreadWish wish{Random(0), false};
  wish.random = Random(random.next());
  wish.done = false;
  if (!start(change_and_sleep, &wish)) {
    return false;
  }
  while (!wish.done) {
    check::sleep_ns(check::kMillisecond);
  }
  return true;
}

bool have_child(Random& random) {
  const pid_t child = ::fork();
  if (child == 0) {
    if (chance(random, 30)) {
      ::_exit(0);  // A zombie.
    }
    while (!check::stopping()) {
      check::sleep_ns(10 * check::kMillisecond);
    }
    ::_exit(0);
  }
  return child > 0;
}

constexpr Step kAttributesSteps[] = {
    {"umask", false, set_umask},
    {"limit", false, lower_limit},
    {"nice", false, set_nice},
    {"scheduling", false, set_scheduling},
    {"deadline", true, set_deadline},
    {"io_priority", false, set_io_priority},
    {"affinity", false, set_affinity},
    {"name", false, set_name},
    {"dumpable", false, set_by_prctl<PR_SET_DUMPABLE, 0, 1>},
    {"death_signal", false, set_by_prctl<PR_SET_PDEATHSIG, SIGUSR1, SIGTERM, 40>},
    {"subreaper", false, set_by_prctl<PR_SET_CHILD_SUBREAPER, 1>},
    {"timer_slack", false, set_by_prctl<PR_SET_TIMERSLACK, 1, 123456, 7'000'000>},
    {"execution", true, set_by_prctl<65, 1, 3>},
    {"merging", true, set_by_prctl<67, 1>},
    {"io_flusher", true, set_by_prctl<PR_SET_IO_FLUSHER, 1>},
    {"machine_checks", true,
     [](Random& random) {
       return ::prctl(PR_MCE_KILL, PR_MCE_KILL_SET, random.below(3), 0, 0) == 0;
     }},
    {"no_huge_pages", false, disable_huge_pages},
    {"speculation", false, set_speculation},
    {"personality", false, set_personality},
    {"oom_score", false, set_oom_score},
    {"coredump_filter", false, set_coredump_filter},
    {"autogroup", false, set_autogroup},
    {"session", false, begin_session},
    {"process_group", false, begin_group},
    {"folder", false, change_folder},
    {"removed_folder", true, change_to_removed_folder},
    {"hosts_folder", true, change_to_hosts_folder},
    {"memory_policy", false, set_memory_policy},
    {"handler", false, handle_signal},
    {"mask", false, block_signals},
    {"pending", false, have_pending_signals},
    {"signal_stack", false, set_signal_stack},
    {"interval_timer", false, set_interval_timer},
    {"timer", false, make_timer},
    {"barriers", false, register_barriers},
    {"lock_memory", false, lock_memory},
    {"cpuid", true, forbid_cpuid},
    {"segment", true, set_segment},
    {"dispatch", true, dispatch_calls},
    {"robust_list", false, set_robust_list},
    {"threads", false, start_threads},
    {"thread_of_its_own", false, start_thread_of_its_own},
    {"child", true, have_child},
};

}  // namespace

std::span<const Step> attribute_steps() {
  return kAttributesSteps;
}

}  // namespace pairs
