// What the process is: its names, who it is, what it may, and where it works.
#include <grp.h>
#include <linux/capability.h>
#include <linux/membarrier.h>
#include <sched.h>
#include <signal.h>
#include <sys/auxv.h>
#include <sys/fsuid.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <array>
#include <functional>
#include <thread>
#include <vector>

#include "tests/programs/check.h"

namespace {

using check::called;
using check::stopping;

/// Takes `describe()` before and compares it again and again; `pause_ns` between.
template <typename Describe>
void keep(Describe describe, std::int64_t pause_ns = check::kMillisecond) {
  const auto expected = describe();
  check::ready();
  while (!stopping()) {
    CHECK_EQUAL(describe(), expected);
    check::sleep_ns(pause_ns);
  }
  CHECK_EQUAL(describe(), expected);
}

/// A file of /proc is open for a moment, and a move then refused; so look seldom.
constexpr std::int64_t kSeldom = 400 * check::kMillisecond;

std::string read_link(const char* path) {
  std::array<char, 4096> target{};
  const ssize_t length = called(::readlink(path, target.data(), target.size()), "readlink");
  return {target.data(), static_cast<std::size_t>(length)};
}

void names() {
  called(::prctl(PR_SET_NAME, "a (odd) name"), "prctl(PR_SET_NAME)");
  keep(
      [] {
        return read_link("/proc/self/exe") + read_link("/proc/self/cwd") +
               check::read_text("/proc/self/cmdline") + check::read_text("/proc/self/comm") +
               check::read_text("/proc/self/environ");
      },
      kSeldom);
}

void auxv() {
  keep(
      [] {
        std::string text = check::read_text("/proc/self/auxv");
        for (const unsigned long key : {AT_PHDR, AT_ENTRY, AT_RANDOM, AT_SYSINFO_EHDR, AT_EXECFN}) {
          text += std::to_string(::getauxval(key)) + " ";
        }
        text += reinterpret_cast<const char*>(::getauxval(AT_EXECFN));
        for (int index = 0; index < 16; ++index) {
          text += reinterpret_cast<const char*>(::getauxval(AT_RANDOM))[index];
        }
        return text;
      },
      kSeldom);
}

std::string describe_capabilities() {
  __user_cap_header_struct header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  std::array<__user_cap_data_struct, 2> data{};
  called(::syscall(SYS_capget, &header, data.data()), "capget");
  std::ostringstream text;
  text << std::hex;
  for (const __user_cap_data_struct& half : data) {
    text << half.effective << " " << half.permitted << " " << half.inheritable << " ";
  }
  for (int capability = 0; capability < 41; ++capability) {
    text << ::prctl(PR_CAPBSET_READ, capability)
         << ::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, capability, 0, 0);
  }
  text << " " << ::prctl(PR_GET_SECUREBITS) << " " << ::prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0);
  return text.str();
}

std::string describe_credentials() {
  std::array<uid_t, 3> users{};
  std::array<gid_t, 3> groups{};
  called(::getresuid(&users[0], &users[1], &users[2]), "getresuid");
  called(::getresgid(&groups[0], &groups[1], &groups[2]), "getresgid");
  std::array<gid_t, 100> others{};
  const int count = called(::getgroups(others.size(), others.data()), "getgroups");
  std::ostringstream text;
  for (const uid_t user : users) {
    text << user << " ";
  }
  for (const gid_t group : groups) {
    text << group << " ";
  }
  for (int index = 0; index < count; ++index) {
    text << others[static_cast<std::size_t>(index)] << " ";
  }
  text << ::setfsuid(static_cast<uid_t>(-1)) << " " << ::setfsgid(static_cast<gid_t>(-1)) << " ";
  text << ::prctl(PR_GET_DUMPABLE) << " " << ::prctl(PR_GET_KEEPCAPS) << " ";
  return text.str() + describe_capabilities();
}

void set_groups() {
  constexpr std::array<gid_t, 4> kGroups = {65534, 7, 1234, 99999};
  called(::setgroups(kGroups.size(), kGroups.data()), "setgroups");
}

void credentials() {
  set_groups();
  called(::setresgid(65534, 1000, 2000), "setresgid");
  called(::setresuid(65534, 65534, 65534), "setresuid");
  keep(describe_credentials);
}

void mixed_credentials() {
  set_groups();
  called(::setresgid(1, 2, 3), "setresgid");
  called(::setresuid(1000, 0, 65534), "setresuid");
  ::setfsuid(1000);
  keep(describe_credentials);
}

void capabilities() {
  called(::prctl(PR_CAPBSET_DROP, 25), "prctl(PR_CAPBSET_DROP)");
  called(::prctl(PR_SET_KEEPCAPS, 1), "prctl(PR_SET_KEEPCAPS)");
  called(::setresuid(65534, 65534, 65534), "setresuid");
  __user_cap_header_struct header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  std::array<__user_cap_data_struct, 2> data{};
  called(::syscall(SYS_capget, &header, data.data()), "capget");
  data[0].permitted &= 0x0000'0FFFU;
  data[0].effective = 0x0000'000FU;
  data[0].inheritable = 0x0000'0021U;
  data[1] = {};
  called(::syscall(SYS_capset, &header, data.data()), "capset");
  called(::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, 5, 0, 0), "prctl(PR_CAP_AMBIENT)");
  keep(describe_credentials);
}

/// What could not be taken on any more, and was before: an inheritable capability that has left the
/// bounding set, and an ambient one.
void older_capabilities() {
  constexpr unsigned long kNoAmbientRaise = 1UL << 6U;  // SECBIT_NO_CAP_AMBIENT_RAISE
  __user_cap_header_struct header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  std::array<__user_cap_data_struct, 2> data{};
  called(::syscall(SYS_capget, &header, data.data()), "capget");
  data[0].inheritable = 0x0000'0021U;
  called(::syscall(SYS_capset, &header, data.data()), "capset");
  called(::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, 5, 0, 0), "prctl(PR_CAP_AMBIENT)");
  called(::prctl(PR_CAPBSET_DROP, 0), "prctl(PR_CAPBSET_DROP)");
  called(::prctl(PR_SET_SECUREBITS, kNoAmbientRaise), "prctl(PR_SET_SECUREBITS)");
  keep(describe_credentials);
}

void no_new_privs() {
  called(::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl(PR_SET_NO_NEW_PRIVS)");
  keep(describe_credentials);
}

std::string describe_limits() {
  std::ostringstream text;
  for (int resource = 0; resource < 16; ++resource) {
    rlimit limit{};
    called(::getrlimit(static_cast<__rlimit_resource>(resource), &limit), "getrlimit");
    text << limit.rlim_cur << "/" << limit.rlim_max << " ";
  }
  return text.str();
}

void limits() {
  const auto lower = [](__rlimit_resource resource, rlim_t soft, rlim_t hard) {
    const rlimit limit{.rlim_cur = soft, .rlim_max = hard};
    called(::setrlimit(resource, &limit), "setrlimit");
  };
  lower(RLIMIT_NOFILE, 100, 200);
  lower(RLIMIT_CORE, 0, 4096);
  lower(RLIMIT_STACK, 4 << 20, 6 << 20);
  lower(RLIMIT_FSIZE, 1 << 30, RLIM_INFINITY);
  lower(RLIMIT_CPU, 100'000, 200'000);
  keep(describe_limits);
}

std::string describe_places() {
  std::array<char, 4096> directory{};
  CHECK(::getcwd(directory.data(), directory.size()) != nullptr);
  const mode_t mask = ::umask(0);
  ::umask(mask);
  std::ostringstream text;
  text << directory.data() << " " << std::oct << mask << std::dec << " "
       << ::personality(0xFFFFFFFF);
  struct stat here {};
  called(::stat("marker", &here), "stat of a relative path");
  text << " " << here.st_ino << " " << here.st_dev;
  return text.str();
}

void places() {
  const std::string directory = check::work_path("directory");
  called(::mkdir(directory.c_str(), 0755), "mkdir");
  called(::chdir(directory.c_str()), "chdir");
  check::write_text("marker", "here");
  ::umask(0137);
  ::personality(ADDR_NO_RANDOMIZE);
  keep(describe_places);
}

constexpr int kIoPriorityOfProcess = 1;  // IOPRIO_WHO_PROCESS, of a thread

std::string describe_scheduling() {
  std::ostringstream text;
  sched_param parameters{};
  called(::sched_getparam(0, &parameters), "sched_getparam");
  errno = 0;
  text << ::sched_getscheduler(0) << " " << parameters.sched_priority << " "
       << ::getpriority(PRIO_PROCESS, static_cast<id_t>(::syscall(SYS_gettid))) << " "
       << ::prctl(PR_GET_TIMERSLACK) << " " << ::syscall(SYS_ioprio_get, kIoPriorityOfProcess, 0)
       << " ";
  cpu_set_t allowed{};
  called(::sched_getaffinity(0, sizeof allowed, &allowed), "sched_getaffinity");
  for (int processor = 0; processor < CPU_SETSIZE; ++processor) {
    text << (CPU_ISSET(processor, &allowed) ? "1" : "0");
  }
  return text.str();
}

void set_scheduling(int policy, int nice_value, int processor) {
  const sched_param parameters{};
  called(::sched_setscheduler(0, policy, &parameters), "sched_setscheduler");
  called(::setpriority(PRIO_PROCESS, static_cast<id_t>(::syscall(SYS_gettid)), nice_value),
         "setpriority");
  called(::prctl(PR_SET_TIMERSLACK, 70'000 + nice_value), "prctl(PR_SET_TIMERSLACK)");
  constexpr int kBestEffort = 2 << 13;
  called(::syscall(SYS_ioprio_set, kIoPriorityOfProcess, 0, kBestEffort | (nice_value + 1)),
         "ioprio_set");
  if (processor >= 0) {
    cpu_set_t one{};
    CPU_SET(processor, &one);
    called(::sched_setaffinity(0, sizeof one, &one), "sched_setaffinity");
  }
}

/// Which of its memory a core file would hold.
void core_filter() {
  check::write_text("/proc/self/coredump_filter", "0x7f");
  keep([] { return check::read_text("/proc/self/coredump_filter"); }, kSeldom);
}

/// Policy, nice value, timer slack and allowed processors, different in each thread.
void scheduling() {
  const auto body = [](int policy, int nice_value, int processor) {
    set_scheduling(policy, nice_value, processor);
    const std::string expected = describe_scheduling();
    while (!stopping()) {
      CHECK_EQUAL(describe_scheduling(), expected);
      check::sleep_ns(check::kMillisecond);
    }
  };
  std::thread batch(body, SCHED_BATCH, 3, 0);
  std::thread idle(body, SCHED_IDLE, 0, -1);
  set_scheduling(SCHED_OTHER, 5, -1);
  keep(describe_scheduling);
  batch.join();
  idle.join();
}

void switches() {
  called(::prctl(PR_SET_PDEATHSIG, SIGUSR1), "prctl(PR_SET_PDEATHSIG)");
  called(::prctl(PR_SET_CHILD_SUBREAPER, 1), "prctl(PR_SET_CHILD_SUBREAPER)");
  called(::prctl(PR_SET_DUMPABLE, 0), "prctl(PR_SET_DUMPABLE)");
  called(::prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0), "prctl(PR_SET_THP_DISABLE)");
  struct sigaction ignore {};
  ignore.sa_handler = SIG_IGN;
  called(::sigaction(SIGUSR1, &ignore, nullptr), "sigaction");
  keep([] {
    int signal = 0;
    int subreaper = 0;
    called(::prctl(PR_GET_PDEATHSIG, &signal), "prctl(PR_GET_PDEATHSIG)");
    called(::prctl(PR_GET_CHILD_SUBREAPER, &subreaper), "prctl(PR_GET_CHILD_SUBREAPER)");
    std::ostringstream text;
    text << signal << " " << subreaper << " " << ::prctl(PR_GET_DUMPABLE) << " "
         << ::prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0);
    return text.str();
  });
}

/// Huge pages only where they were asked for (Linux 6.18), or not at all.
void huge_pages() {
  constexpr unsigned long kExceptAdvised = 2;
  if (::prctl(PR_SET_THP_DISABLE, 1, kExceptAdvised, 0, 0) != 0) {
    called(::prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0), "prctl(PR_SET_THP_DISABLE)");
  }
  keep([] { return ::prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0); });
}

/// What the kernel shows to nobody else.
void settings() {
  constexpr int kSetMemoryMerge = 67;  // and 68 reads it
  ::prctl(kSetMemoryMerge, 1, 0, 0, 0);
  called(::prctl(PR_MCE_KILL, PR_MCE_KILL_SET, PR_MCE_KILL_EARLY, 0, 0), "prctl(PR_MCE_KILL)");
  keep([] {
    std::ostringstream text;
    text << ::prctl(kSetMemoryMerge + 1, 0, 0, 0, 0) << " " << ::prctl(PR_MCE_KILL_GET, 0, 0, 0, 0);
    return text.str();
  });
}

int barrier(int command) {
  return static_cast<int>(::syscall(SYS_membarrier, command, 0, 0));
}

/// What was registered for is allowed, and the kernel says the same of it.
void barriers() {
  constexpr int kGetRegistrations = 1 << 9;
  called(barrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED), "membarrier");
  called(barrier(MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED), "membarrier");
  if (barrier(kGetRegistrations) >= 0) {
    called(barrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE), "membarrier");
  }
  keep([] {
    called(barrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED), "membarrier(PRIVATE_EXPEDITED)");
    return barrier(kGetRegistrations);
  });
}

/// The nice value of the session as a whole, where the kernel groups processes by it.
void session_nice() {
  const bool own = ::setsid() >= 0 || ::getsid(0) == ::getpid();
  if (own && ::access("/proc/self/autogroup", W_OK) == 0) {
    check::write_text("/proc/self/autogroup", "7");
  }
  keep(
      [] {
        if (::access("/proc/self/autogroup", R_OK) != 0) {
          return std::string();
        }
        const std::string text = check::read_text("/proc/self/autogroup");
        return text.substr(text.rfind(' '));
      },
      kSeldom);
}

constexpr check::Property kProperties[] = {
    {"names", names},
    {"auxv", auxv},
    {"credentials", credentials},
    {"mixed_credentials", mixed_credentials},
    {"capabilities", capabilities},
    {"older_capabilities", older_capabilities},
    {"no_new_privs", no_new_privs},
    {"limits", limits},
    {"places", places},
    {"scheduling", scheduling},
    {"switches", switches},
    {"core_filter", core_filter},
    {"huge_pages", huge_pages},
    {"settings", settings},
    {"barriers", barriers},
    {"session_nice", session_nice},
};

}  // namespace

int main(int argc, char** argv) {
  return check::main(argc, argv, kProperties);
}
