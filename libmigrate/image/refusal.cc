#include "libmigrate/image/refusal.h"

#include <algorithm>
#include <array>

namespace migrate {
namespace {

constexpr std::array kKinds = std::to_array<RefusalKind>({
    {"AIO", "asynchronous reads and writes in flight live in this kernel",
     "let the program use threads instead (MySQL innodb_use_native_aio=0, QEMU aio=threads, nginx "
     "without 'aio on'), or move when it has closed its AIO context (io_destroy)"},
    {"ARCH", "the machine code is not for the destination's architecture",
     "choose a destination of the same architecture"},
    {"ASYNC_IO", "the descriptor sends signals (O_ASYNC), which are not carried",
     "let the program clear O_ASYNC, or poll instead"},
    {"BORN_AWAY",
     "its parent was away from home when it was born: it lives in the cell of its parent, and has "
     "no home that it could have left",
     "begin it where its parent was started: a function that runs elsewhere returns what is to be "
     "run next, and its caller runs that"},
    {"BPF", "BPF objects belong to this kernel", "let the program close its BPF objects"},
    {"CAPABILITIES", "the process has capabilities that the destination's daemon has not",
     "give the daemon there these capabilities, or start the program with fewer (setpriv, capsh)"},
    {"CHILDREN", "the process has children, which would lose their parent",
     "try again when the children have ended (migratectl move --retry SECONDS), or move the "
     "children themselves",
     true},
    {"CHROOT", "the process has another root directory than the daemon",
     "run the program without chroot"},
    {"COPY_MOVED",
     "copies are made of a process that has not been moved: one that has lives in a cell, at its "
     "home as well",
     "copy it before it is moved"},
    {"COPY_THREADS", "a copy of a process has one thread, as a child of fork(2)",
     "let the program fork by itself (migrate_spawn, migrate::async), where it knows of its "
     "threads"},
    {"CPU_FEATURE", "the destination's CPU lacks a feature that the program may be using",
     "choose a destination whose CPU has it, or start the program with it masked "
     "(GLIBC_TUNABLES=glibc.cpu.hwcaps=...)"},
    {"DELETED_FILE", "the file is no longer found under its path",
     "give the file its name back; restart the program if its own executable was upgraded"},
    {"DEVICE", "devices other than null, zero, full, random and urandom stay with their host",
     "let the program close the device"},
    {"DIRECT_IO",
     "the file is read around the page cache (O_DIRECT), which writes memory behind the back of "
     "what "
     "follows writes",
     "move it lazily (--mode lazy), or let the program open the file without O_DIRECT"},
    {"DRAINED", "the destination takes no processes: all are to leave it",
     "choose another destination, or let it take some again (migratectl undrain HOST)"},
    {"EPOLL_STALE", "it watches a file that is open under this number no more",
     "let the program remove the watch, or close every duplicate of what it watches"},
    {"FANOTIFY", "file notifications belong to this kernel", "let the program close it"},
    {"FILE_DIFFERS", "the destination has another file under this path",
     "install the same version there, or put the file on a file system that both hosts share"},
    {"FILE_LOCK",
     "of locks on files, only shared ones are carried, where both hosts see the same locks",
     "try again in a moment (migratectl move --retry SECONDS)", true},
    {"FILE_MISSING", "the destination has no such file",
     "install it there, or put the file on a file system that both hosts share"},
    {"FILE_PERMISSION", "its user may not open the file at the destination",
     "let its user read it there (chmod), or move where root's processes are taken from this host "
     "(allow, in the configuration of migrated)"},
    {"GROUP_LIMITS",
     "a host does not let it go, or take it, without a limit of its control groups that it would "
     "not have at the destination",
     "choose a destination whose migrated can make control groups (docs/operations.md)"},
    {"GUARD_REGION",
     "guard regions (MADV_GUARD_INSTALL) in files and shared memory are not carried",
     "use mprotect(PROT_NONE) for guard pages"},
    {"HELD", "the program is in a section in which it is not to be moved (migrate_hold)",
     "try again in a moment (migratectl move --retry SECONDS)", true},
    {"HOOKS", "the program has hooks, which it calls only where it says that it may be moved",
     "try again (migrate_point, migrate_self)"},
    {"HOOK_NOT_DONE",
     "a hook of the program, which it calls before a move, has not returned in time",
     "give it more time (migratectl move --point-wait SECONDS), or find out what it waits for"},
    {"HOOK_VETO", "a hook of the program is against it",
     "try again when the program has no reason against it"},
    {"HUGETLB", "huge pages of files of hugetlbfs are not carried",
     "use those of mmap (MAP_HUGETLB) or memfd_create (MFD_HUGETLB), or transparent ones (madvise "
     "MADV_HUGEPAGE; Java's "
     "-XX:+UseTransparentHugePages, DPDK's --no-huge)"},
    {"INOTIFY", "of watches (inotify), those of files that have a path are carried",
     "let the program close its inotify descriptors"},
    {"INOTIFY_EVENTS", "a watch (inotify) has told what the program has not read yet",
     "try again in a moment (migratectl move --retry SECONDS)", true},
    {"IO_URING", "rings of io_uring are shared with this kernel",
     "run the program without io_uring"},
    {"KERNEL_THREAD", "a kernel thread has no program that could be moved", "name a user process"},
    {"KVM", "virtual machines belong to this kernel",
     "migrate the virtual machine by its own means"},
    {"LARGE_MEMFD",
     "a memory file or deleted file that is open has its data in more than 65,536 pieces",
     "let the program close the descriptor of its memfd or deleted file when it has mapped it"},
    {"LINK_DENIED", "a rule of this host denies the connection to processes that are moved",
     "let the program close it, or ask the administrator of its home about the rule (policy of "
     "migrated)"},
    {"LINK_RULES", "rules of its home about its links are not kept there",
     "move it with --network home, or ask the administrator of its home for a rule (action = "
     "\"place\")"},
    {"LOSS", "the process would lose it, and is to be moved without loss (strict)",
     "move it without --strict if it can do without"},
    {"MEMORY", "the destination has too little memory for it",
     "choose a destination with more memory available"},
    {"MQUEUE", "POSIX message queues belong to this kernel",
     "let the program close its message queues"},
    {"NAMESPACE", "the process lives in a namespace of its own (a container, for example)",
     "move programs that run directly on the host"},
    {"NOT_ALLOWED", "the destination does not take this user's processes from this host",
     "ask its administrator for a rule (allow, in the configuration of its migrated)"},
    {"NOT_PERMITTED", "the kernel would not let who asks look into the process as it is now",
     "ask its owner or root; a program with set-user-id, set-group-id or capabilities is root's to "
     "move"},
    {"NOT_READABLE", "the daemon may not look into this process",
     "name another process, or give the daemon the right (CAP_SYS_PTRACE, security modules)"},
    {"NO_HOME_NETWORK",
     "the destination cannot give it the network of its home, from which it would connect",
     "move it with --network place, so that it connects from the destination, or give migrated "
     "there /dev/net/tun, CAP_NET_ADMIN and CAP_NET_RAW (docs/links.md)"},
    {"NO_LINKS", "the destination cannot make connections of TCP for it",
     "choose a destination whose daemon has CAP_SYS_ADMIN and CAP_NET_ADMIN"},
    {"NO_PLACE_NETWORK",
     "the destination does not let processes of other hosts use its own network",
     "move it with --network home, or ask its administrator (only_home_network, in the "
     "configuration of migrated)"},
    {"NO_POINT", "the program has no points at which it could be moved (migrate_point)",
     "move it wherever it is: without --at-point"},
    {"NO_TERMINALS", "the destination cannot make a terminal",
     "ask its administrator to mount devpts on /dev/pts"},
    {"NO_VDSO",
     "the program has unmapped what the kernel mapped for it (vdso, vvar), by which calls in it "
     "begin",
     "run the program without what unmaps them (sandboxes and checkpointing tools do)"},
    {"NO_WRITE_TRACKING", "what the process writes while it is sent cannot be followed here",
     "move it lazily (--mode lazy), or all at once (--mode eager)"},
    {"PAGE_SIZE", "the destination has pages of another size",
     "choose a destination with the same page size"},
    {"PATH_DESCRIPTOR",
     "of descriptors opened with O_PATH, those of regular files and folders are carried",
     "let the program close it"},
    {"PERF", "performance counters belong to this kernel",
     "let the program close its performance counters"},
    {"PIDFD", "the descriptor refers to another process of this host, or to a thread",
     "let the program close it"},
    {"PIPE_ABROAD",
     "the pipe was opened where the process is a guest, and its other end is not its",
     "move when the program has closed it"},
    {"PIPE_SHARED", "both ends of the pipe are inside, yet another process holds it too",
     "let the other process close its end"},
    {"POINT_NOT_REACHED", "the program has not come to one of its points (migrate_point) in time",
     "give it more time (migratectl move --point-wait SECONDS), or, if it has no hooks, move it "
     "wherever it is: without --at-point"},
    {"POLICY", "a rule of a policy says that such memory is not to leave",
     "ask whoever wrote the rule, or choose another policy (--policy)"},
    {"PRIVILEGE", "it has more rights than its user could have at the destination",
     "move it where root's processes are taken from this host (allow, in the configuration of "
     "migrated)"},
    {"PROC_FILE", "the file shows or steers this kernel",
     "let the program close it; try again in a moment"},
    {"PROTECTION_KEY", "memory protection keys are not carried",
     "run the program without protection keys"},
    {"RLIMIT", "a resource limit is higher than the destination may set",
     "raise the limit of the daemon at the destination, or give it CAP_SYS_RESOURCE"},
    {"RLIMIT_REACHED", "the process has reached a limit that moving it needs a little room below",
     "raise the limit (prlimit --pid PID), or start the program with a higher one"},
    {"SCHEDULING", "the scheduling policy is not carried",
     "use SCHED_OTHER, BATCH, IDLE, FIFO or RR"},
    {"SCHEDULING_RIGHTS", "the destination's daemon may not give a thread its scheduling",
     "give the daemon there CAP_SYS_NICE, or let the program have the common policy, nice value "
     "and "
     "processors (chrt, renice, taskset)"},
    {"SEALED", "sealed mappings (mseal) cannot be taken away at the source",
     "run the program without memory sealing"},
    {"SECCOMP", "seccomp filters cannot be read back and would be lost",
     "run the program without its seccomp sandbox"},
    {"SECURITY_LABEL", "it is confined by a security module, and would run unconfined",
     "run the program unconfined, or the daemon under the same profile"},
    {"SELF", "the daemon cannot move itself or what works for it, nor the first process of a host",
     "name another process"},
    {"SESSIONS", "the destination has as many processes of other hosts as it takes",
     "try again when some have ended, or choose another destination", true},
    {"SHADOW_STACK", "shadow stacks are not carried",
     "run the program without them (GLIBC_TUNABLES=glibc.cpu.x86_shstk=off)"},
    {"SHARED_ADDRESS_SPACE",
     "another process shares its memory, its descriptor table or its working directory (clone)",
     "move when the other process has ended"},
    {"SHARED_FILE",
     "another process has the same open file, and with it the same state or position",
     "let each program open the file itself; if it is the output of a program and its children or "
     "copies, append to it (>> in a shell), or write through a pipe (| cat >FILE)"},
    {"SHARED_MEMORY_OUTSIDE", "another process shares this memory",
     "move when the other process has ended or unmapped it"},
    {"SIGNALS_PENDING", "more signals wait for it than are sent anew in one go",
     "let the program take signals that it blocks; try again in a moment"},
    {"SOCKET",
     "of Unix domain sockets, connected streams are carried, and pairs without names whose both "
     "ends are inside",
     "move when the program has closed its connections"},
    {"SOCKET_ABROAD",
     "the connection or listener was made where the process is a guest, and its home does not know "
     "it",
     "move when the program has closed it"},
    {"SOCKET_BOUND", "the socket has a name of its home's, which the network of the place has not",
     "move it with --network home, or when the program has closed the socket"},
    {"SOCKET_CONNECTING", "a connection is just being made",
     "try again in a moment (migratectl move --retry SECONDS)", true},
    {"SOCKET_KIND", "of sockets of networks, only those of TCP and UDP are carried",
     "move when the program has closed it"},
    {"SOCKET_SETTING", "the socket has a setting that is not carried",
     "run the program without it, or move when it has closed the socket"},
    {"SOCKET_SHARED", "another process has the same socket of a network",
     "move when the other process has closed it"},
    {"SOCKET_UNREAD", "a connection that is over has bytes that the program has not read",
     "try again in a moment (migratectl move --retry SECONDS)", true},
    {"SOCKET_UNSENT", "datagrams of the program wait to be sent (UDP_CORK, MSG_MORE)",
     "try again in a moment (migratectl move --retry SECONDS)", true},
    {"SOCKET_URGENT",
     "the program has read an urgent byte of a connection before those in front of it",
     "try again in a moment (migratectl move --retry SECONDS)", true},
    {"STOPPED", "the process is stopped by job control", "let it go on (SIGCONT), and try again",
     true},
    {"SYSV_MSG", "System V message queues stay with their host",
     "move when the program no longer uses the queue, and it has been removed"},
    {"SYSV_SEM", "System V semaphores, and undoing them at exit, stay with their host",
     "move when the program has released the semaphores, or they have been removed"},
    {"SYSV_SHM", "System V shared memory stays with its host",
     "move when the program has detached and removed it, or use mmap"},
    {"TERMINAL_ABROAD", "the terminal was opened where the process is a guest, not at its home",
     "move when the program has closed it"},
    {"TERMINAL_BUSY", "a pseudo-terminal of the program's own cannot be read just now",
     "try again in a moment (migratectl move --retry SECONDS)", true},
    {"TERMINAL_PAIR",
     "of pseudo-terminals whose master the process has, only plain ones are carried that nobody "
     "else has",
     "move when the program has closed it, or when whoever runs in it has ended"},
    {"TERMINAL_STATE", "of terminals, only plain ones are carried",
     "run the program in a terminal window, tmux or a session of ssh, and let it set nothing "
     "special"},
    {"THREAD_UNSHARED", "a thread does not share what the threads of a process commonly share",
     "programs whose threads call unshare() cannot be moved"},
    {"TIMERS", "it has more POSIX timers than are set anew in one go",
     "let the program delete timers that it does not need"},
    {"TIMERS_HIDDEN", "this kernel does not show the POSIX timers of a process",
     "use a kernel with CONFIG_CHECKPOINT_RESTORE"},
    {"TRACED", "a debugger or tracer holds the process", "detach it, and try again"},
    {"UNKNOWN_ATTRIBUTE", "an attribute of the process is not known to be carried",
     "run the program without it, or let it take it back"},
    {"UNKNOWN_DESCRIPTOR", "this kind of descriptor is not known to be carried",
     "let the program close it"},
    {"UNKNOWN_MAPPING", "this kind of mapping is not known to be carried",
     "let the program unmap it"},
    {"USERFAULTFD", "another pager already serves the page faults of this memory",
     "run the program without userfaultfd"},
    {"VDSO", "the destination's kernel has another vDSO",
     "choose a destination with the same kernel version"},
    {"XSAVE", "the destination's CPU saves extended registers in another layout",
     "choose a destination with the same kind of CPU"},
    {"ZOMBIE", "the process, or its first thread, has ended", "name a process that runs"},
});

// What helps better than the remedy of all of a kind, by what the object's name has in it; the
// first that fits counts.
struct FittingRemedy {
  std::string_view code;
  std::string_view mark;
  std::string_view remedy;
};
constexpr std::string_view kOwnFolder =
    "the file is in the source's own folder: let the program keep it on a file system that both "
    "hosts share (such as TMPDIR=FOLDER), or close it";
constexpr std::string_view kHdf5 =
    "let the program close the file, or start it with HDF5_USE_FILE_LOCKING=FALSE if nobody else "
    "writes to it";
constexpr std::array kFitting = std::to_array<FittingRemedy>({
    {"DELETED_FILE", "executable",
     "restart the program: its file was replaced or removed, as an upgrade does"},
    {"DELETED_FILE", "working directory", "let the program change to a folder that is there (cd)"},
    {"DELETED_FILE", "descriptor",
     "let the program close it and open it again; or start it anew with its output in a file that "
     "is seen here: it was renamed, or opened where another folder is mounted"},
    {"FILE_LOCK", ".h5", kHdf5},
    {"FILE_LOCK", ".hdf5", kHdf5},
    {"FILE_LOCK", ".nc", kHdf5},
    {"FILE_MISSING", "/hsperfdata_", "start Java with -XX:-UsePerfData"},
    {"FILE_DIFFERS", "/hsperfdata_", "start Java with -XX:-UsePerfData"},
    {"FILE_MISSING", " /tmp/", kOwnFolder},
    {"FILE_MISSING", " /var/tmp/", kOwnFolder},
    {"FILE_MISSING", " /run/", kOwnFolder},
    {"FILE_MISSING", " /dev/shm/", kOwnFolder},
    {"NAMESPACE", "net",
     "run the program in the host's network: not by ip netns exec, unshare --net, or a unit with "
     "PrivateNetwork="},
    {"NAMESPACE", "mnt",
     "run the program with the host's mounts: not by unshare --mount, in a container, or in a unit "
     "with PrivateTmp= or ProtectSystem="},
    {"NAMESPACE", "user",
     "run the program without a user namespace (rootless containers, unshare)"},
    {"NAMESPACE", "pid_for_children", "run the program without unshare --pid"},
});

}  // namespace

std::vector<RefusalKind> refusal_kinds() {
  return {kKinds.begin(), kKinds.end()};
}

wire::Refusal make_refusal(std::string_view code, std::string object, std::string_view detail) {
  wire::Refusal refusal;
  refusal.set_code(std::string(code));
  refusal.set_object(std::move(object));
  const auto* kind = std::ranges::find(kKinds, code, &RefusalKind::code);
  std::string reason;
  if (kind != kKinds.end()) {
    reason = kind->reason;
    refusal.set_remedy(std::string(kind->remedy));
  }
  if (!detail.empty()) {
    reason.append(reason.empty() ? "" : ": ").append(detail);
  }
  refusal.set_reason(std::move(reason));
  for (const FittingRemedy& fitting : kFitting) {
    if (fitting.code == code && refusal.object().find(fitting.mark) != std::string::npos) {
      refusal.set_remedy(std::string(fitting.remedy));
      break;
    }
  }
  return refusal;
}

bool is_transient(const wire::Refusal& refusal) {
  const auto* kind = std::ranges::find(kKinds, refusal.code(), &RefusalKind::code);
  return kind != kKinds.end() && kind->transient;
}

bool all_transient(const std::vector<wire::Refusal>& refusals) {
  return !refusals.empty() && std::ranges::all_of(refusals, is_transient);
}

bool is_about_files(const wire::Refusal& refusal) {
  return refusal.code() == "FILE_MISSING" || refusal.code() == "FILE_DIFFERS" ||
         refusal.code() == "FILE_PERMISSION";
}

}  // namespace migrate
