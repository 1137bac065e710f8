// What takes away rights and room, and so comes last: users, capabilities, namespaces, filters,
// limits that are reached.
#include <grp.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <linux/securebits.h>
#include <sched.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include <array>
#include <filesystem>
#include <sstream>
#include <system_error>

#include "tests/programs/pairs.h"

namespace pairs {
namespace {

constexpr uid_t kNewUser = 64001;
constexpr uid_t kNewGroup = 64002;

struct Capabilities {
  std::array<__user_cap_data_struct, 2> data{};
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  bool read() { return ::syscall(SYS_capget, &header, data.data()) == 0; }
  bool write() { return ::syscall(SYS_capset, &header, data.data()) == 0; }
};

bool drop_bounding(Random& random) {
  bool dropped = false;
  for (std::uint64_t count = 1 + random.below(5); count > 0; --count) {
    dropped = ::prctl(PR_CAPBSET_DROP, random.below(40), 0, 0, 0) == 0;
  }
  return dropped;
}

bool change_capabilities(Random& random) {
  Capabilities capabilities;
  if (!capabilities.read()) {
    return false;
  }
  __user_cap_data_struct& low = capabilities.data[0];
  const auto some = static_cast<std::uint32_t>(random.next());
  switch (random.below(3)) {
    case 0:
      low.inheritable = low.permitted & some;
      break;
    case 1:
      low.effective &= some;
      break;
    default:
      low.permitted &= some;
      low.effective &= low.permitted;
      break;
  }
  return capabilities.write();
}

bool raise_ambient(Random& random) {
  Capabilities capabilities;
  const auto number = static_cast<unsigned>(random.below(30));
  if (!capabilities.read()) {
    return false;
  }
  capabilities.data[0].inheritable |= 1U << number;
  return capabilities.write() && ::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, number, 0, 0) == 0;
}

bool set_secure_bits(Random& random) {
  constexpr int kBits[] = {SECBIT_NOROOT, SECBIT_NO_SETUID_FIXUP, SECBIT_KEEP_CAPS,
                           SECBIT_NO_CAP_AMBIENT_RAISE, SECBIT_NOROOT_LOCKED};
  return ::prctl(PR_SET_SECUREBITS, some_of(random, kBits), 0, 0, 0) == 0;
}

/// Whether all threads have the same rights to change their ids. Where the kernel allows some of
/// them what it denies others, the C library ends the program (abort): so none is asked to. In a
/// root directory without /proc nobody can tell.
bool threads_agree() {
  std::string first;
  std::error_code unseen;
  const std::filesystem::directory_iterator threads("/proc/self/task", unseen);
  bool agree = !unseen;
  for (const auto& thread : threads) {
    std::istringstream status(check::read_text(thread.path() / "status"));
    std::string rights;
    for (std::string line; std::getline(status, line);) {
      if (line.starts_with("Uid:") || line.starts_with("Gid:") || line.starts_with("CapEff:")) {
        rights += line;
      }
    }
    first = first.empty() ? rights : first;
    agree = agree && rights == first;
  }
  errno = EPERM;
  return agree;
}

bool set_groups(Random& random) {
  const std::array<gid_t, 3> groups{static_cast<gid_t>(random.below(5)), 42, kNewGroup};
  return threads_agree() && ::setgroups(random.below(4), groups.data()) == 0;
}

bool change_group(Random& random) {
  constexpr gid_t kGroups[] = {0, kNewUser, kNewGroup};
  return threads_agree() && ::setresgid(one_of(random, kGroups), one_of(random, kGroups),
                                        one_of(random, kGroups)) == 0;
}

bool change_user(Random& random) {
  ::prctl(PR_SET_KEEPCAPS, chance(random, 20) ? 1 : 0, 0, 0, 0);
  constexpr uid_t kUsers[] = {0, kNewUser};
  return threads_agree() &&
         ::setresuid(one_of(random, kUsers), one_of(random, kUsers), one_of(random, kUsers)) == 0;
}

bool change_file_user(Random& /*random*/) {
  ::setfsgid(kNewUser);
  ::setfsuid(kNewUser);
  return ::setfsuid(static_cast<uid_t>(-1)) == static_cast<int>(kNewUser);
}

bool give_root_up(Random& /*random*/) {
  return threads_agree() && ::setgroups(0, nullptr) == 0 &&
         ::setresgid(kNewUser, kNewUser, kNewUser) == 0 && threads_agree() &&
         ::setresuid(kNewUser, kNewUser, kNewUser) == 0;
}

/// One thread's alone: the C library's function would change all of them.
bool change_one_thread(Random& /*random*/) {
  return ::syscall(SYS_setresuid, kNewUser, kNewUser, 0) == 0;
}

bool no_new_rights(Random& /*random*/) {
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0;
}

template <int kNamespace>
bool leave_namespace(Random& /*random*/) {
  return ::unshare(kNamespace) == 0;
}

bool filter_calls(Random& /*random*/) {
  sock_filter allow{.code = BPF_RET | BPF_K, .jt = 0, .jf = 0, .k = SECCOMP_RET_ALLOW};
  const sock_fprog filter{.len = 1, .filter = &allow};
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter, 0, 0) == 0;
}

bool change_root(Random& /*random*/) {
  return ::chroot(check::stop_file.substr(0, check::stop_file.rfind('/')).c_str()) == 0;
}

std::uint64_t used_kibibytes(const char* field) {
  const std::string status = check::read_text("/proc/self/status");
  const std::size_t at = status.find(field);
  return at == std::string::npos
             ? 0
             : std::strtoull(status.c_str() + at + std::strlen(field), nullptr, 10);
}

/// As little room as there may be, or none. Only the soft limit: the program lifts it for itself.
bool reach_limit(Random& random) {
  const std::uint64_t room = random.below(2) * random.below(700) << 10U;
  switch (random.below(3)) {
    case 0: {
      rlimit limit{};
      ::getrlimit(RLIMIT_NOFILE, &limit);
      const int next = ::dup(STDOUT_FILENO);
      ::close(next);
      limit.rlim_cur = static_cast<rlim_t>(next) + random.below(4);
      return ::setrlimit(RLIMIT_NOFILE, &limit) == 0;
    }
    case 1: {
      const rlimit limit{(used_kibibytes("VmSize:") << 10U) + room, RLIM_INFINITY};
      return ::setrlimit(RLIMIT_AS, &limit) == 0;
    }
    default: {
      const rlimit limit{(used_kibibytes("VmData:") << 10U) + room, RLIM_INFINITY};
      return ::setrlimit(RLIMIT_DATA, &limit) == 0;
    }
  }
}

constexpr Step kLastSteps[] = {
    {"bounding", false, drop_bounding},
    {"capabilities", false, change_capabilities},
    {"ambient", false, raise_ambient},
    {"secure_bits", false, set_secure_bits},
    {"groups", false, set_groups},
    {"group", false, change_group},
    {"user", false, change_user},
    {"file_user", false, change_file_user},
    {"give_root_up", false, give_root_up},
    {"one_thread", false, change_one_thread},
    {"no_new_rights", false, no_new_rights},
    {"network", true, leave_namespace<CLONE_NEWNET>},
    {"mounts", true, leave_namespace<CLONE_NEWNS>},
    {"ipc", true, leave_namespace<CLONE_NEWIPC>},
    {"uts", true, leave_namespace<CLONE_NEWUTS>},
    {"users", true, leave_namespace<CLONE_NEWUSER>},
    {"control_groups", true, leave_namespace<CLONE_NEWCGROUP>},
    {"pids", true, leave_namespace<CLONE_NEWPID>},
    {"times", true, leave_namespace<CLONE_NEWTIME>},
    {"system_v_undo", false, leave_namespace<CLONE_SYSVSEM>},
    {"descriptors", false, leave_namespace<CLONE_FILES>},
    {"file_system", false, leave_namespace<CLONE_FS>},
    {"filter", true, filter_calls},
    {"root", true, change_root},
    {"reached", true, reach_limit},
};

}  // namespace

std::span<const Step> last_steps() {
  return kLastSteps;
}

}  // namespace pairs
