#include <fmt/core.h>
#include <linux/kcmp.h>
#include <sys/ipc.h>
#include <sys/sem.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "base/file.h"
#include "libmigrate/arch/arch.h"
#include "libmigrate/inspect/internal/process_facts.h"
#include "libmigrate/proc/proc_text.h"

namespace migrate::inspect {
namespace {

std::string describe(const ProcessView& view) {
  return fmt::format("pid {}", view.pid);
}

void check_namespaces(const ProcessView& view, Refusals& refusals) {
  for (const auto& [name, own] : view.own_namespaces) {
    const auto theirs = read_link_at(view.directory.get(), "ns/" + name);
    // A PID namespace without a process, as after unshare(CLONE_NEWPID), has no link.
    if (!theirs && name == "pid_for_children" && read_link_at(view.directory.get(), "ns/pid")) {
      refuse(refusals, "NAMESPACE", "pid_for_children namespace, in which no process is yet");
    }
    if (theirs && *theirs != own && !view.known.own_namespaces.contains(*theirs)) {
      refuse(refusals, "NAMESPACE", fmt::format("{} namespace {}", name, *theirs));
    }
  }
}

void check_root(const ProcessView& view, Refusals& refusals) {
  struct stat theirs {};
  struct stat own {};
  if (::fstat(view.root.get(), &theirs) == 0 && ::stat("/", &own) == 0 &&
      (theirs.st_dev != own.st_dev || theirs.st_ino != own.st_ino)) {
    refuse(refusals, "CHROOT",
           "root directory " + read_link_at(view.directory.get(), "root").value_or("?"));
  }
}

// What status shows of one thread that is not carried, unless it is as in our own process.
void check_status(const std::string& who, std::string_view status, Refusals& refusals) {
  if (number_field(status, "Seccomp:") != 0) {
    const bool strict = number_field(status, "Seccomp:") == 1;
    refuse(refusals, "SECCOMP", who,
           strict ? "strict mode"
                  : fmt::format("{} filters", number_field(status, "Seccomp_filters:")));
  }
  for (const arch::ShownSetting& setting : arch::kShownSettings) {
    const auto shown = find_field(status, setting.line);
    if (shown &&
        (setting.refused.empty() ? *shown != setting.common
                                 : shown->find(setting.refused) != std::string_view::npos)) {
      refuse(refusals, setting.code, who, fmt::format("{} {}", setting.line, *shown));
    }
  }
  for (const std::string_view key : {"Speculation_Store_Bypass:", "SpeculationIndirectBranch:"}) {
    const auto setting = find_field(status, key);
    if (setting && (setting->find("force") != std::string_view::npos)) {
      refuse(refusals, "UNKNOWN_ATTRIBUTE", who, fmt::format("{} {}", key, *setting));
    }
  }
}

void check_label(const ProcessView& view, Refusals& refusals) {
  const auto label = read_file_at(view.directory.get(), "attr/current");
  const auto own = read_file("/proc/self/attr/current");
  if (label && own && *label != *own) {
    refuse(refusals, "SECURITY_LABEL", *label);
  }
}

// Rows of a table of /proc/sysvipc, as numbers; the first word of each line is the key.
std::vector<std::vector<std::uint64_t>> system_v_table(const std::string& name) {
  std::vector<std::vector<std::uint64_t>> rows;
  const auto content = read_file("/proc/sysvipc/" + name);
  std::string_view text = content ? std::string_view(*content) : std::string_view();
  take_line(text);
  while (!text.empty()) {
    std::string_view line = take_line(text);
    std::vector<std::uint64_t>& row = rows.emplace_back();
    for (std::string_view word = take_word(line); !word.empty(); word = take_word(line)) {
      row.push_back(parse_number(word).value_or(0));
    }
  }
  return rows;
}

// When the process was started, in seconds of the system clock.
std::uint64_t start_time(const ProcessView& view) {
  constexpr std::size_t kStartTime = 22 - 3;
  const auto stat = read_file_at(view.directory.get(), "stat");
  if (!stat) {
    return 0;
  }
  const auto fields = stat_fields(*stat);
  timespec now{};
  timespec up{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  ::clock_gettime(CLOCK_BOOTTIME, &up);
  const auto ticks = static_cast<std::uint64_t>(::sysconf(_SC_CLK_TCK));
  const std::uint64_t started =
      fields.size() > kStartTime ? parse_number(fields[kStartTime]).value_or(0) / ticks : 0;
  return static_cast<std::uint64_t>(now.tv_sec - up.tv_sec) + started - 1;
}

// Whether an operation on a semaphore of the set was last done by the process.
bool last_used(const ProcessView& view, int set, std::uint64_t count) {
  for (std::uint64_t i = 0; i < count; ++i) {
    if (::semctl(set, static_cast<int>(i), GETPID) == view.pid) {
      return true;
    }
  }
  return false;
}

// Undo values cannot be read. A process without an undo list, as ours is, has none; threads get an
// empty one with the first pthread_create. So a list counts where there is a set of semaphores
// that the process's user owns and that was used in the process's lifetime.
void check_semaphores(const ProcessView& view, std::uint64_t started, Refusals& refusals) {
  enum Column {
    kKey,
    kId,
    kMode,
    kCount,
    kUid,
    kGid,
    kCreatorUid,
    kCreatorGid,
    kUsed,
    kChanged,
    kColumns
  };
  const bool undo_list = ::syscall(SYS_kcmp, ::getpid(), view.pid, KCMP_SYSVSEM, 0, 0) != 0;
  std::string_view uids = find_field(view.status_text, "Uid:").value_or(std::string_view());
  take_word(uids);
  const std::uint64_t uid = parse_number(take_word(uids)).value_or(0);
  for (const auto& row : system_v_table("sem")) {
    if (row.size() < kColumns) {
      continue;
    }
    // The kernel notes who used a set last, and not who made it.
    if (row[kUsed] == 0 && row[kChanged] >= started && row[kCreatorUid] == uid) {
      refuse(refusals, "SYSV_SEM", fmt::format("semaphore set {}", row[kId]),
             "its user made it since the process began, and nobody has used it yet");
      continue;
    }
    if (row[kUsed] < started) {
      continue;
    }
    const bool owned = row[kUid] == uid || row[kCreatorUid] == uid;
    if (last_used(view, static_cast<int>(row[kId]), row[kCount])) {
      refuse(refusals, "SYSV_SEM", fmt::format("semaphore set {}", row[kId]));
    } else if (undo_list && owned) {
      refuse(refusals, "SYSV_SEM", fmt::format("semaphore set {}", row[kId]),
             "the process may have operations to undo");
    }
  }
}

}  // namespace

std::map<std::string, std::string> own_namespaces() {
  constexpr std::array kNamespaces{"cgroup",           "ipc",  "mnt",  "net", "pid",
                                   "pid_for_children", "time", "user", "uts", "time_for_children"};
  std::map<std::string, std::string> links;
  for (const char* name : kNamespaces) {
    if (auto link = read_link(std::string("/proc/self/ns/") + name)) {
      links.emplace(name, std::move(*link));
    }
  }
  return links;
}

void check_process(const ProcessView& view, bool frozen, Refusals& refusals) {
  check_namespaces(view, refusals);
  check_root(view, refusals);
  if (frozen) {
    return;
  }
  if (view.pid == 1 || view.pid == ::getpid()) {
    refuse(refusals, "SELF", describe(view));
  }
  if (const std::uint64_t tracer = number_field(view.status_text, "TracerPid:"); tracer != 0) {
    refuse(refusals, "TRACED", describe(view), fmt::format("by pid {}", tracer));
  }
  check_label(view, refusals);
}

void check_threads(const ProcessView& view, const ThreadIds& threads, bool frozen,
                   Refusals& refusals) {
  constexpr std::array kShared{KCMP_FILES, KCMP_FS, KCMP_SYSVSEM};
  constexpr std::array kNames{"descriptors", "file system context", "semaphore undo list"};
  for (const auto& [tid, inner] : threads) {
    const std::string who = fmt::format("thread {}", tid);
    const std::string directory = std::to_string(tid);
    for (std::size_t i = 0; i < kShared.size(); ++i) {
      if (tid != view.pid && ::syscall(SYS_kcmp, view.pid, tid, kShared[i], 0, 0) > 0) {
        refuse(refusals, "THREAD_UNSHARED", who, kNames[i]);
      }
    }
    if (frozen && tid != view.pid) {
      continue;
    }
    const auto status = tid == view.pid ? Result<std::string>(view.status_text)
                                        : read_file_at(view.tasks.get(), directory + "/status");
    if (status) {
      check_status(who, *status, refusals);
      const std::string_view state = find_field(*status, "State:").value_or(std::string_view("?"));
      if (state.starts_with('Z') || state.starts_with('X')) {
        refuse(refusals, "ZOMBIE", who);
      } else if (state.starts_with('T') && tid == view.pid) {
        refuse(refusals, "STOPPED", describe(view));
      }
    }
    for (const std::string name :
         {"ns/net", "ns/mnt", "ns/uts", "ns/ipc", "ns/user", "ns/cgroup"}) {
      const auto theirs =
          tid != view.pid ? read_link_at(view.tasks.get(), fmt::format("{}/{}", directory, name))
                          : Result<std::string>(std::string());
      if (theirs && tid != view.pid &&
          *theirs != read_link_at(view.directory.get(), name).value_or(*theirs)) {
        refuse(refusals, "NAMESPACE", fmt::format("{} {}", who, *theirs));
      }
    }
  }
}

void check_system_v(const ProcessView& view, Refusals& refusals) {
  const std::uint64_t started = start_time(view);
  const auto pid = static_cast<std::uint64_t>(view.pid);
  {
    enum Column { kKey, kId, kMode, kSize, kCreator, kLast, kAttached, kColumns };
    constexpr std::size_t kChanged = 13;
    for (const auto& row : system_v_table("shm")) {
      if (row.size() > kChanged && row[kCreator] == pid && row[kChanged] >= started) {
        refuse(refusals, "SYSV_SHM", fmt::format("segment {}", row[kId]),
               "created by the process, and not removed");
      }
    }
  }
  {
    enum Column { kKey, kId, kMode, kBytes, kMessages, kSender, kReceiver, kColumns };
    for (const auto& row : system_v_table("msg")) {
      if (row.size() >= kColumns && (row[kSender] == pid || row[kReceiver] == pid)) {
        refuse(refusals, "SYSV_MSG", fmt::format("queue {}", row[kId]));
      }
    }
  }
  check_semaphores(view, started, refusals);
}

}  // namespace migrate::inspect
