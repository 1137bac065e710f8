#include "libmigrate/inspect/state_table.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "libmigrate/carriers/carriers.h"
#include "libmigrate/inspect/internal/losses.h"

namespace migrate {
namespace {

constexpr StateFate kCarried = StateFate::kCarried;
constexpr StateFate kRefused = StateFate::kRefused;
constexpr StateFate kLost = StateFate::kLost;
constexpr StateFate kLostByAll = StateFate::kLostByAll;
constexpr StateFate kLostUnseen = StateFate::kLostUnseen;

constexpr std::string_view kMappings = "follows from the mappings and pages";
constexpr std::string_view kCounter = "a counter of this kernel's: begins again";
constexpr std::string_view kHost = "the destination's own";
constexpr std::string_view kView = "shows what other entries tell of";

constexpr std::array kTable = std::to_array<StateEntry>({
    // One line of /proc/PID/status each.
    {"status", "Name", kCarried, "of each thread"},
    {"status", "Umask", kCarried, ""},
    {"status", "State", kCarried, "STOPPED, ZOMBIE are refused; whoever waits in a call waits on"},
    {"status", "Tgid", kCarried, "inside its cell; the host's number is another"},
    {"status", "Ngid", kLostByAll, "NUMA groups are this kernel's"},
    {"status", "Pid", kCarried, "inside its cell"},
    {"status", "PPid", kLostByAll, "1, the init of its cell; its parent at home has the deputy"},
    {"status", "TracerPid", kRefused, "TRACED"},
    {"status", "Uid", kCarried, "four ids of each thread"},
    {"status", "Gid", kCarried, "four ids of each thread"},
    {"status", "FDSize", kLostByAll, "how large the table has been"},
    {"status", "Groups", kCarried, ""},
    {"status", "NStgid", kCarried, "the last number"},
    {"status", "NSpid", kCarried, "the last number"},
    {"status", "NSpgid", kLost, "it leads a group of its own in its cell", "PROCESS_GROUP",
     inspect::find_process_group,
     "start the program as the leader of a group (setsid, or a shell with job control)"},
    {"status", "NSsid", kLostByAll,
     "it leads a session of its own in its cell; with the terminal of a session that it did not "
     "lead, it "
     "is in that of the cell's init"},
    {"status", "Kthread", kRefused, "KERNEL_THREAD"},
    {"status", "VmPeak", kLostByAll, kCounter},
    {"status", "VmSize", kCarried, kMappings},
    {"status", "VmLck", kCarried, kMappings},
    {"status", "VmPin", kRefused, "IO_URING, DEVICE: what pins pages"},
    {"status", "VmHWM", kLostByAll, kCounter},
    {"status", "VmRSS", kLostByAll, "grows as pages arrive"},
    {"status", "RssAnon", kLostByAll, "grows as pages arrive"},
    {"status", "RssFile", kLostByAll, "grows as pages arrive"},
    {"status", "RssShmem", kLostByAll, "grows as pages arrive"},
    {"status", "VmData", kCarried, kMappings},
    {"status", "VmStk", kCarried, kMappings},
    {"status", "VmExe", kCarried, kMappings},
    {"status", "VmLib", kCarried, kMappings},
    {"status", "VmPTE", kLostByAll, "grows as pages arrive"},
    {"status", "VmSwap", kLostByAll, "what is in swap travels as pages"},
    {"status", "HugetlbPages", kLostByAll, "none there, as ht of VmFlags tells"},
    {"status", "CoreDumping", kRefused, "ZOMBIE: it is ending"},
    {"status", "THP_enabled", kCarried, "PR_SET_THP_DISABLE"},
    {"status", "untag_mask", kRefused, "UNKNOWN_ATTRIBUTE if addresses are tagged"},
    {"status", "Threads", kCarried, ""},
    {"status", "SigQ", kCarried, "follows from the pending signals"},
    {"status", "SigPnd", kCarried,
     "with the information of each signal; too many at once are refused (SIGNALS_PENDING)"},
    {"status", "ShdPnd", kCarried, "with the information of each signal"},
    {"status", "SigBlk", kCarried, ""},
    {"status", "SigIgn", kCarried, ""},
    {"status", "SigCgt", kCarried, ""},
    {"status", "CapInh", kCarried, "where the destination's rules let root's processes in"},
    {"status", "CapPrm", kCarried, "where the destination's rules let root's processes in"},
    {"status", "CapEff", kCarried, "where the destination's rules let root's processes in"},
    {"status", "CapBnd", kLost,
     "carried but for what the destination's daemon has not itself, which programs that the "
     "process "
     "starts there cannot gain",
     "BOUNDING_SET", inspect::find_what_is_told_there,
     "give the daemon's unit at the destination those capabilities (CapabilityBoundingSet)"},
    {"status", "CapAmb", kCarried, "where the destination's rules let root's processes in"},
    {"status", "NoNewPrivs", kCarried, ""},
    {"status", "Seccomp", kRefused, "SECCOMP"},
    {"status", "Seccomp_filters", kRefused, "SECCOMP"},
    {"status", "Speculation_Store_Bypass", kLost,
     "the destination's default; forced mitigations are refused (UNKNOWN_ATTRIBUTE)", "SPECULATION",
     inspect::find_speculation, "let the program set it again (prctl PR_SET_SPECULATION_CTRL)"},
    {"status", "SpeculationIndirectBranch", kLost,
     "the destination's default; forced mitigations are refused (UNKNOWN_ATTRIBUTE)",
     "SPECULATION"},
    {"status", "Cpus_allowed", kCarried, "of each thread, as far as the destination has them"},
    {"status", "Cpus_allowed_list", kCarried, "of each thread, as far as the destination has them"},
    {"status", "Mems_allowed", kLost, "the nodes of the daemon's control group", "MEMORY_NODES"},
    {"status", "Mems_allowed_list", kLost, "the nodes of the daemon's control group",
     "MEMORY_NODES", inspect::find_memory_nodes,
     "give the daemon's unit at the destination the same nodes (AllowedMemoryNodes)"},
    {"status", "voluntary_ctxt_switches", kLostByAll, kCounter},
    {"status", "nonvoluntary_ctxt_switches", kLostByAll, kCounter},
    {"status", "x86_Thread_features", kRefused, "SHADOW_STACK"},
    {"status", "x86_Thread_features_locked", kRefused, "UNKNOWN_ATTRIBUTE"},

    // What is in /proc/PID.
    {"/proc/PID", "arch_status", kLostByAll, kCounter},
    {"/proc/PID", "attr", kRefused, "SECURITY_LABEL if it is not the daemon's"},
    {"/proc/PID", "autogroup", kCarried, "the nice value; the group is a new one"},
    {"/proc/PID", "auxv", kCarried, ""},
    {"/proc/PID", "cgroup", kLost,
     "limits are carried into a group of its own, but not those of other kinds (io, devices, "
     "weights of groups above), nor what the destination cannot set",
     "CONTROL_GROUP", inspect::find_group_limits,
     "set them for the daemon's unit at the destination, or let its daemon make control groups "
     "(docs/operations.md)"},
    {"/proc/PID", "clear_refs", kCarried, "no state of its own"},
    {"/proc/PID", "cmdline", kCarried, "is memory"},
    {"/proc/PID", "comm", kCarried, "of each thread"},
    {"/proc/PID", "coredump_filter", kCarried, ""},
    {"/proc/PID", "cpu_resctrl_groups", kLost, "cache and bandwidth groups are the host's",
     "RESOURCE_GROUP", inspect::find_resource_group,
     "put it into a group of the destination's (resctrl)"},
    {"/proc/PID", "cpuset", kLost, "as cgroup", "CONTROL_GROUP"},
    {"/proc/PID", "cwd", kCarried, "by its path, if the destination has it"},
    {"/proc/PID", "environ", kCarried, "is memory"},
    {"/proc/PID", "exe", kLost,
     "by its path, if the destination has the same; if it has no name any more, an empty file "
     "stands for it",
     "EXECUTABLE", inspect::find_deleted_executable,
     "restart the program if it looks at its own file (/proc/self/exe)"},
    {"/proc/PID", "fd", kCarried, "each kind as below, the rest refused"},
    {"/proc/PID", "fdinfo", kCarried, "as below"},
    {"/proc/PID", "gid_map", kRefused, "NAMESPACE"},
    {"/proc/PID", "io", kLostByAll, kCounter},
    {"/proc/PID", "ksm_merging_pages", kLostByAll, kCounter},
    {"/proc/PID", "ksm_stat", kLostByAll, kCounter},
    {"/proc/PID", "latency", kLostByAll, kCounter},
    {"/proc/PID", "limits", kCarried, "as below"},
    {"/proc/PID", "loginuid", kLost,
     "carried where the destination may set it: of another than the process's own user, only from "
     "hosts that may bring root's processes",
     "LOGIN", inspect::find_what_is_told_there,
     "look for the process itself in the destination's audit log"},
    {"/proc/PID", "map_files", kCarried, kMappings},
    {"/proc/PID", "maps", kCarried, "kinds as in libmigrate/proto/image.proto, the rest refused"},
    {"/proc/PID", "mem", kCarried, "pages, when they are asked for or pushed"},
    {"/proc/PID", "mountinfo", kRefused, "NAMESPACE if it is not the daemon's"},
    {"/proc/PID", "mounts", kRefused, "NAMESPACE if it is not the daemon's"},
    {"/proc/PID", "mountstats", kRefused, "NAMESPACE if it is not the daemon's"},
    {"/proc/PID", "net", kRefused, "NAMESPACE if it is not the daemon's"},
    {"/proc/PID", "ns", kRefused, "NAMESPACE; pid and time are its cell's afterwards"},
    {"/proc/PID", "numa_maps", kLost, "memory policies are not shown well enough to be carried",
     "MEMORY_POLICY"},
    {"/proc/PID", "oom_adj", kCarried, "oom_score_adj"},
    {"/proc/PID", "oom_score", kCarried, "follows from oom_score_adj and its memory"},
    {"/proc/PID", "oom_score_adj", kCarried, ""},
    {"/proc/PID", "pagemap", kCarried, kMappings},
    {"/proc/PID", "patch_state", kLostByAll, kHost},
    {"/proc/PID", "personality", kCarried, ""},
    {"/proc/PID", "projid_map", kRefused, "NAMESPACE"},
    {"/proc/PID", "root", kRefused, "CHROOT"},
    {"/proc/PID", "sched", kLostByAll, kCounter},
    {"/proc/PID", "schedstat", kLostByAll, kCounter},
    {"/proc/PID", "sessionid", kLostByAll, "a new audit session"},
    {"/proc/PID", "setgroups", kRefused, "NAMESPACE"},
    {"/proc/PID", "smaps", kCarried, kMappings},
    {"/proc/PID", "smaps_rollup", kCarried, kMappings},
    {"/proc/PID", "stack", kCarried, kView},
    {"/proc/PID", "stat", kCarried, "times are counters and begin again; the rest as status"},
    {"/proc/PID", "statm", kCarried, kMappings},
    {"/proc/PID", "status", kCarried, "as above"},
    {"/proc/PID", "syscall", kCarried,
     "interrupted calls are made again with what is left of their time"},
    {"/proc/PID", "task", kCarried, "all threads"},
    {"/proc/PID", "timens_offsets", kCarried, "CLOCK_MONOTONIC and CLOCK_BOOTTIME go on"},
    {"/proc/PID", "timers", kCarried,
     "POSIX timers, up to 512 (TIMERS); TIMERS_HIDDEN where the kernel does not show them"},
    {"/proc/PID", "timerslack_ns", kLost,
     "carried, of each thread; but a thread of an ordinary policy that has none, since one of a "
     "real-time policy has made it, has the destination's default there",
     "TIMER_SLACK", inspect::find_timer_slack,
     "let the thread choose one that is not 0 (prctl PR_SET_TIMERSLACK)"},
    {"/proc/PID", "uid_map", kRefused, "NAMESPACE"},
    {"/proc/PID", "wchan", kCarried, kView},

    // VmFlags of /proc/PID/smaps; whatever is not here is refused (UNKNOWN_MAPPING).
    {"VmFlags", "rd", kCarried, ""},
    {"VmFlags", "wr", kCarried, ""},
    {"VmFlags", "ex", kCarried, ""},
    {"VmFlags", "sh", kCarried, ""},
    {"VmFlags", "mr", kCarried, "by how the object is opened"},
    {"VmFlags", "mw", kCarried, "by how the object is opened"},
    {"VmFlags", "me", kCarried, "by how the object is opened"},
    {"VmFlags", "ms", kCarried, "by how the object is opened"},
    {"VmFlags", "gd", kCarried, "MAP_GROWSDOWN"},
    {"VmFlags", "pf", kRefused, "DEVICE; [vvar] excepted"},
    {"VmFlags", "io", kRefused, "DEVICE; [vvar] excepted"},
    {"VmFlags", "lo", kCarried, "locked as pages arrive"},
    {"VmFlags", "lf", kCarried, "locked as pages arrive"},
    {"VmFlags", "sr", kCarried, "MADV_SEQUENTIAL"},
    {"VmFlags", "rr", kCarried, "MADV_RANDOM"},
    {"VmFlags", "dc", kCarried, "MADV_DONTFORK"},
    {"VmFlags", "de", kCarried, "[vdso] and [vvar]: the destination's"},
    {"VmFlags", "ac", kCarried, "follows from the mapping"},
    {"VmFlags", "nr", kCarried, "MAP_NORESERVE"},
    {"VmFlags", "ht", kLost,
     "ordinary memory stands for huge pages that are anonymous or a memfd's, with MADV_HUGEPAGE if "
     "they are private; those of files are refused (HUGETLB)",
     "HUGE_PAGES", inspect::find_huge_pages,
     "let the destination use transparent huge pages (/sys/kernel/mm/transparent_hugepage)"},
    {"VmFlags", "sf", kRefused, "UNKNOWN_MAPPING: MAP_SYNC"},
    {"VmFlags", "nl", kRefused, "UNKNOWN_MAPPING: a relict"},
    {"VmFlags", "ar", kRefused, "UNKNOWN_MAPPING: of an architecture"},
    {"VmFlags", "wf", kCarried, "MADV_WIPEONFORK"},
    {"VmFlags", "dd", kCarried, "MADV_DONTDUMP"},
    {"VmFlags", "sd", kLostByAll, "soft-dirty bits: whoever tracks writes begins again"},
    {"VmFlags", "mm", kRefused, "UNKNOWN_MAPPING: mixed page frames, of devices"},
    {"VmFlags", "hg", kCarried, "MADV_HUGEPAGE"},
    {"VmFlags", "nh", kCarried, "MADV_NOHUGEPAGE"},
    {"VmFlags", "mg", kCarried, "MADV_MERGEABLE"},
    {"VmFlags", "um", kRefused, "USERFAULTFD"},
    {"VmFlags", "uw", kRefused, "USERFAULTFD"},
    {"VmFlags", "ui", kRefused, "USERFAULTFD"},
    {"VmFlags", "ss", kRefused, "SHADOW_STACK"},
    {"VmFlags", "sl", kRefused, "SEALED"},
    {"VmFlags", "dp", kCarried, "MAP_DROPPABLE: mapped again, and empty"},
    {"VmFlags", "gu", kCarried, "guard regions of private memory; of files refused (GUARD_REGION)"},

    // Lines of /proc/PID/fdinfo, of all kinds of descriptors; those of one kind its carrier has.
    {"fdinfo", "pos", kCarried, ""},
    {"fdinfo", "flags", kCarried, "O_ASYNC is refused (ASYNC_IO)"},
    {"fdinfo", "mnt_id", kLostByAll, kHost},
    {"fdinfo", "ino", kLostByAll,
     "of files that both see, the same; of what is made anew, another"},
    {"fdinfo", "lock", kCarried,
     "shared ones of regular files, where both hosts see the same locks; else refused (FILE_LOCK)"},
    {"fdinfo", "scm_fds", kRefused, "SOCKET: descriptors under way"},
    {"fdinfo", "fanotify flags", kRefused, "FANOTIFY"},

    // /proc/PID/limits; an unknown one is refused (UNKNOWN_ATTRIBUTE).
    {"limits", "Max cpu time", kCarried, "the time used begins again"},
    {"limits", "Max file size", kCarried, ""},
    {"limits", "Max data size", kCarried, "RLIMIT_REACHED without room for the move"},
    {"limits", "Max stack size", kCarried, ""},
    {"limits", "Max core file size", kCarried, ""},
    {"limits", "Max resident set", kCarried, ""},
    {"limits", "Max processes", kCarried, "not counted when it arrives"},
    {"limits", "Max open files", kCarried, "RLIMIT_REACHED without room for the move"},
    {"limits", "Max locked memory", kCarried, ""},
    {"limits", "Max address space", kCarried, "RLIMIT_REACHED without room for the move"},
    {"limits", "Max file locks", kCarried, ""},
    {"limits", "Max pending signals", kCarried, ""},
    {"limits", "Max msgqueue size", kCarried, ""},
    {"limits", "Max nice priority", kCarried, ""},
    {"limits", "Max realtime priority", kCarried, ""},
    {"limits", "Max realtime timeout", kCarried, ""},

    // prctl(2): what it gives back.
    {"prctl", "PR_GET_CHILD_SUBREAPER", kCarried, ""},
    {"prctl", "PR_GET_DUMPABLE", kCarried, ""},
    {"prctl", "PR_GET_ENDIAN", kRefused, "not on x86-64"},
    {"prctl", "PR_GET_FPEMU", kRefused, "not on x86-64"},
    {"prctl", "PR_GET_FPEXC", kRefused, "not on x86-64"},
    {"prctl", "PR_GET_FP_MODE", kRefused, "not on x86-64"},
    {"prctl", "PR_GET_IO_FLUSHER", kLost, "of storage daemons of root's; not set any more",
     "IO_FLUSHER", inspect::find_io_flusher,
     "let the program set it again (prctl PR_SET_IO_FLUSHER)"},
    {"prctl", "PR_GET_KEEPCAPS", kCarried, "with the secure bits"},
    {"prctl", "PR_GET_MDWE", kRefused, "UNKNOWN_ATTRIBUTE"},
    {"prctl", "PR_GET_MEMORY_MERGE", kCarried, ""},
    {"prctl", "PR_GET_AUXV", kCarried, ""},
    {"prctl", "PR_GET_NAME", kCarried, ""},
    {"prctl", "PR_GET_NO_NEW_PRIVS", kCarried, ""},
    {"prctl", "PR_GET_PDEATHSIG", kCarried, ""},
    {"prctl", "PR_GET_SECCOMP", kRefused, "SECCOMP"},
    {"prctl", "PR_GET_SECUREBITS", kCarried, ""},
    {"prctl", "PR_GET_SHADOW_STACK_STATUS", kRefused, "SHADOW_STACK"},
    {"prctl", "PR_GET_SPECULATION_CTRL", kLost,
     "as Speculation_Store_Bypass of status; flushing L1D is not seen", "SPECULATION"},
    {"prctl", "PR_GET_TAGGED_ADDR_CTRL", kRefused, "not on x86-64"},
    {"prctl", "PR_GET_THP_DISABLE", kCarried, ""},
    {"prctl", "PR_GET_TID_ADDRESS", kCarried, "of each thread"},
    {"prctl", "PR_GET_TIMERSLACK", kCarried, "of each thread"},
    {"prctl", "PR_GET_TIMING", kCarried, "there is one value only"},
    {"prctl", "PR_GET_TSC", kCarried, "of each thread"},
    {"prctl", "PR_GET_UNALIGN", kRefused, "not on x86-64"},

    // What only system calls tell, or nothing does.
    {"other", "registers, XSAVE state", kCarried,
     "of each thread; CPU_FEATURE, if the destination lacks one"},
    {"other", "restartable sequences, robust futexes", kCarried, "of each thread"},
    {"other", "alternate signal stack", kCarried, "of each thread"},
    {"other", "signal actions", kCarried, ""},
    {"other", "interval timers, POSIX timers", kCarried,
     "less the time that has gone by; overruns are lost"},
    {"other", "processor time clocks and times", kLostByAll,
     "begin again; the parent sees none of the time abroad"},
    {"other", "scheduling policy, priority, nice, I/O priority", kCarried,
     "SCHED_DEADLINE is refused (SCHEDULING)"},
    {"other", "membarrier registrations", kCarried, ""},
    {"other", "mlockall(MCL_FUTURE)", kCarried,
     "RLIMIT_REACHED, told by move only if nothing is locked yet: Linux shows it to nobody else"},
    {"other", "mlockall(MCL_ONFAULT)", kLostUnseen, "for what is mapped later"},
    {"other", "memory policies (mbind, set_mempolicy)", kLost,
     "the destination's default; of other threads than the first not seen", "MEMORY_POLICY",
     inspect::find_memory_policies,
     "let the program set it again, or move its pages (migratepages)"},
    {"other", "machine checks (PR_MCE_KILL), CPUID faults (ARCH_SET_CPUID)", kCarried,
     "of each thread"},
    {"other", "system call user dispatch", kRefused, "UNKNOWN_ATTRIBUTE"},
    {"other", "local descriptor table", kRefused, "UNKNOWN_ATTRIBUTE"},
    {"other", "I/O ports (ioperm, iopl)", kLostUnseen, "of root's programs"},
    {"other", "owner and signal of a descriptor (F_SETOWN, F_SETSIG)", kLost,
     "nobody is signalled; O_ASYNC is refused", "DESCRIPTOR_OWNER", inspect::find_descriptor_owners,
     "let the program set them again (fcntl F_SETOWN, F_SETSIG)"},
    {"other", "file leases", kRefused, "FILE_LOCK"},
    {"other", "directory notifications (F_NOTIFY)", kLost, "of changes there it hears no more",
     "DIRECTORY_NOTIFICATION", inspect::find_directory_owners,
     "let the program ask for them again (fcntl F_NOTIFY)"},
    {"other", "one-shot watches that have fired (EPOLLONESHOT)", kLost,
     "carried where what is watched can fire at once: pipes inside, eventfd, timerfd; others tell "
     "of errors and hang-ups again",
     "WATCH_FIRED", inspect::find_fired_watches,
     "none: a program sets such a watch again (EPOLL_CTL_MOD) when it wants to hear more"},
    {"other", "what an edge-triggered watch (EPOLLET) has told", kLostUnseen,
     "it tells once more of what is there, as epoll(7) lets it"},
    {"other", "Landlock domain", kLostUnseen, "its ruleset descriptor is refused"},
    {"other", "keyrings", kLostByAll, "a new, empty session keyring"},
    {"other", "System V shared memory, messages, semaphores", kRefused,
     "SYSV_SHM, SYSV_MSG, SYSV_SEM"},
    {"other", "POSIX message queues", kRefused, "MQUEUE"},
    {"other", "children", kRefused, "CHILDREN"},
    {"other", "io_uring, AIO, perf events, BPF, KVM", kRefused, "IO_URING, AIO, PERF, BPF, KVM"},
    {"other", "connections of TCP", kCarried,
     "by a pair of sockets there, which is fed from home (docs/links.md); SOCKET_ABROAD, "
     "SOCKET_SETTING, SOCKET_SHARED, SOCKET_CONNECTING, SOCKET_UNREAD, SOCKET_URGENT"},
    {"other", "listeners of TCP", kCarried,
     "the same; who waits to be accepted, too; SOCKET_ABROAD, SOCKET_SETTING, SOCKET_SHARED"},
    {"other", "sockets of TCP that are neither connected nor listen", kCarried,
     "made anew; SOCKET_SETTING, SOCKET_SHARED, SOCKET_BOUND"},
    {"other", "sockets of UDP", kCarried,
     "made anew; what waits comes after it; SOCKET_SETTING, SOCKET_SHARED, SOCKET_BOUND, "
     "SOCKET_UNSENT"},
    {"other", "connections of Unix domain stream sockets", kCarried,
     "by a pair of sockets there, which is fed from home (docs/links.md); SOCKET, SOCKET_ABROAD"},
    {"other", "other sockets", kRefused,
     "SOCKET, SOCKET_KIND, but for pairs with both ends inside"},
    {"other", "named pipes", kLost,
     "it is relayed: fstat and /proc tell of a pipe without a name, or of a socket", "NAMED_PIPE",
     inspect::find_named_pipes, "let the program open it again by its name"},
    {"other", "shared mappings of files that only the source has", kLost,
     "refused (FILE_MISSING, FILE_DIFFERS), but for temporary files and those that a policy sends: "
     "memory stands for the file, and what is written there comes into no file",
     "FILE_AS_MEMORY", inspect::find_files_as_memory,
     "let the program keep it on a file system that both hosts share (such as TMPDIR=FOLDER)"},
    {"other", "terminals that are open", kCarried,
     "modes, size, unread input, foreground group; other than plain ones: TERMINAL_STATE"},
    {"other", "pseudo-terminals whose master the process has", kCarried,
     "modes, size, what waits both ways, packet mode, lock, output that is stopped, its being the "
     "terminal of the process's own session; where somebody else has a side, or a setting is "
     "special: TERMINAL_PAIR; where a packet was not read: TERMINAL_BUSY. The cursor's column, by "
     "which tabs are expanded, is lost"},
    {"other", "controlling terminal", kLost,
     "it is carried if a descriptor leads to it; else /dev/tty cannot be opened, and its signals "
     "are "
     "relayed",
     "TERMINAL", inspect::find_terminal, "let the program keep it open (/dev/tty)"},
});

constexpr std::string_view word_of(StateFate fate) {
  switch (fate) {
    case kCarried:
      return "carried";
    case kRefused:
      return "refused";
    case kLost:
      return "lost and said";
    case kLostByAll:
      return "lost by all";
    case kLostUnseen:
      return "lost unseen";
  }
  return {};
}

std::vector<StateEntry> with_lines_of_carriers() {
  std::vector<StateEntry> lines;
  for (const carriers::Carrier* carrier : carriers::all_carriers()) {
    for (const carriers::ShownLine& line : carrier->lines) {
      lines.push_back({"fdinfo", line.name, line.is_carried ? kCarried : kLostByAll, line.how});
    }
  }
  std::vector<StateEntry> table(kTable.begin(), kTable.end());
  const auto last = std::ranges::find(table.rbegin(), table.rend(), "fdinfo", &StateEntry::source);
  table.insert(last.base(), lines.begin(), lines.end());
  return table;
}

// How, and of what is told under which code.
std::string text_of(const StateEntry& entry) {
  return entry.code.empty() ? std::string(entry.how) : fmt::format("{}: {}", entry.code, entry.how);
}

}  // namespace

std::span<const StateEntry> state_table() {
  static const std::vector<StateEntry> kWhole = with_lines_of_carriers();
  return kWhole;
}

std::vector<std::string> unknown_state(std::string_view source,
                                       std::span<const std::string> names) {
  std::vector<std::string> unknown;
  std::copy_if(names.begin(), names.end(), std::back_inserter(unknown), [&](const auto& name) {
    return std::ranges::none_of(state_table(), [&](const StateEntry& entry) {
      return entry.source == source && entry.name == name;
    });
  });
  return unknown;
}

std::vector<Loss> find_losses(const inspect::LossView& view) {
  std::vector<Loss> losses;
  for (const StateEntry& entry : state_table()) {
    if (entry.find == nullptr) {
      continue;
    }
    for (std::string& object : entry.find(view)) {
      losses.push_back({entry.code, std::move(object), entry.how, entry.remedy});
    }
  }
  return losses;
}

Loss loss_there(std::string_view name, std::string object) {
  const auto* entry = std::ranges::find(kTable, name, &StateEntry::name);
  return {entry->code, std::move(object), entry->how, entry->remedy};
}

std::string state_document() {
  std::string text =
      "# State\n\n"
      "Every attribute that Linux has of a process, thread, descriptor or mapping, and what "
      "becomes\n"
      "of it when the process moves: *carried*, *refused* (a process that has it, other than as\n"
      "everybody has it, is not moved; the code of the refusal is named), or lost. *Lost and "
      "said*: of\n"
      "a process that has it, other than as everybody has it, `migratectl check` and the report "
      "of the\n"
      "move say so, under the code that is named, and with `--strict` it is not moved (LOSS). "
      "*Lost by\n"
      "all*: it begins again, or is the destination's, for every process. *Lost unseen*: Linux "
      "shows to\n"
      "nobody whether a process has it. Made from `libmigrate/inspect/state_table.cc`, and what "
      "the\n"
      "carriers say of their lines of fdinfo, by `state_table_test`, which compares it with what "
      "the\n"
      "kernel that it runs on shows.\n";
  std::string_view source;
  for (const StateEntry& entry : state_table()) {
    if (entry.source != source) {
      source = entry.source;
      text += fmt::format("\n## {}\n\n| name | becomes | how |\n|---|---|---|\n", source);
    }
    text += fmt::format("| {} | {} | {} |\n", entry.name, word_of(entry.fate), text_of(entry));
  }
  return text;
}

}  // namespace migrate
