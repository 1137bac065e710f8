// Programs that cannot be moved, one for each reason; each goes on unharmed when a move is refused.
//   refused --list                          NAME CODE[,CODE...] one a line
//   refused NAME STOP_FILE [SECONDS]        as other programs (check.h); 77 if the kernel lacks it
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/bpf.h>
#include <linux/filter.h>
#include <linux/io_uring.h>
#include <linux/perf_event.h>
#include <linux/seccomp.h>
#include <mqueue.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/fanotify.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ipc.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <array>
#include <functional>

#include "tests/programs/check.h"
#include "tests/programs/refused_limits.h"
#include "tests/programs/refused_terminals.h"

namespace {

using check::called;
using refused::Verify;
constexpr int kSkipped = 77;

struct Refused {
  const char* name;
  const char* codes;
  Verify (*set_up)();
};

/// `result` of something that not every kernel has.
template <typename Integer>
Integer available(Integer result, const char* what) {
  if (result == static_cast<Integer>(-1)) {
    check::say((std::string("skip: ") + what + ": " + std::strerror(errno) + "\n").c_str());
    ::_exit(kSkipped);
  }
  return result;
}

Verify still_open(int fd) {
  return [fd] { called(::fcntl(fd, F_GETFD), "fcntl(F_GETFD)"); };
}

/// Runs `body` in a process that is no child of this one, until the stop file is there.
pid_t start_outsider(const std::function<void()>& body) {
  std::array<int, 2> ends{};
  called(::pipe2(ends.data(), O_CLOEXEC), "pipe2");
  const pid_t child = called(::fork(), "fork");
  if (child == 0) {
    const pid_t parent = ::getpid();
    if (called(::fork(), "fork") == 0) {
      // The parent's SIGCHLD for a tracee would stop it for a tracer that does not wait for it.
      while (::getppid() == parent) {
        check::sleep_ns(check::kMillisecond);
      }
      body();
      const pid_t own = ::getpid();
      static_cast<void>(::write(ends[1], &own, sizeof own));
      ::close(ends[0]);
      ::close(ends[1]);
      while (!check::stopping()) {
        check::sleep_ns(10 * check::kMillisecond);
      }
      check::sleep_ns(200 * check::kMillisecond);
    }
    ::_exit(0);
  }
  called(::waitpid(child, nullptr, 0), "waitpid");
  pid_t outsider = 0;
  CHECK_EQUAL(::read(ends[0], &outsider, sizeof outsider), static_cast<ssize_t>(sizeof outsider));
  ::close(ends[0]);
  ::close(ends[1]);
  return outsider;
}

Verify sysv_shm_attached() {
  const int id = called(::shmget(IPC_PRIVATE, 8192, IPC_CREAT | 0600), "shmget");
  auto* memory = static_cast<char*>(::shmat(id, nullptr, 0));
  called(::shmctl(id, IPC_RMID, nullptr), "shmctl");
  std::strcpy(memory, "shared");
  return [memory] { CHECK_EQUAL(std::string(memory), "shared"); };
}

Verify sysv_shm_owned() {
  const int id = called(::shmget(IPC_PRIVATE, 8192, IPC_CREAT | 0600), "shmget");
  return [id] { called(::shmctl(id, IPC_RMID, nullptr), "shmctl"); };
}

Verify sysv_sem_undo() {
  const int id = called(::semget(IPC_PRIVATE, 1, IPC_CREAT | 0600), "semget");
  sembuf up{.sem_num = 0, .sem_op = 1, .sem_flg = SEM_UNDO};
  called(::semop(id, &up, 1), "semop");
  return [id] {
    CHECK_EQUAL(::semctl(id, 0, GETVAL), 1);
    called(::semctl(id, 0, IPC_RMID), "semctl");
  };
}

Verify device() {
  return still_open(available(::open("/dev/kmsg", O_RDONLY), "/dev/kmsg"));
}

Verify raw() {
  return still_open(called(::socket(AF_INET, SOCK_RAW, IPPROTO_UDP), "socket"));
}

/// One that has joined a group of multicast.
Verify member() {
  const int fd = called(::socket(AF_INET, SOCK_DGRAM, 0), "socket");
  const ip_mreqn group{.imr_multiaddr = {htonl(INADDR_ALLHOSTS_GROUP)},
                       .imr_address = {htonl(INADDR_LOOPBACK)},
                       .imr_ifindex = 0};
  called(::setsockopt(fd, IPPROTO_IP, IP_ADD_MEMBERSHIP, &group, sizeof group), "setsockopt");
  return still_open(fd);
}

Verify corked() {
  const int fd = called(::socket(AF_INET, SOCK_DGRAM, 0), "socket");
  const int yes = 1;
  called(::setsockopt(fd, IPPROTO_UDP, UDP_CORK, &yes, sizeof yes), "setsockopt");
  return still_open(fd);
}

Verify unix_socket() {
  const int fd = called(::socket(AF_UNIX, SOCK_STREAM, 0), "socket");
  const sockaddr_un address{.sun_family = AF_UNIX, .sun_path = ""};
  called(::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(sa_family_t)), "bind");
  return still_open(fd);
}

Verify netlink() {
  return still_open(called(::socket(AF_NETLINK, SOCK_RAW, 0), "socket"));
}

/// A descriptor is on its way from one end to the other.
Verify descriptor_under_way() {
  std::array<int, 2> ends{};
  called(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends.data()), "socketpair");
  char byte = 'x';
  iovec vector{&byte, 1};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  cmsghdr* const header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  std::copy_n(reinterpret_cast<const unsigned char*>(&ends[0]), sizeof(int), CMSG_DATA(header));
  CHECK_EQUAL(::sendmsg(ends[0], &message, 0), 1);
  return [ends] {
    char letter = 0;
    CHECK_EQUAL(::read(ends[1], &letter, 1), 1);
    CHECK_EQUAL(letter, 'x');
  };
}

Verify uring() {
  io_uring_params parameters{};
  return still_open(
      static_cast<int>(available(::syscall(SYS_io_uring_setup, 4, &parameters), "io_uring_setup")));
}

Verify userfault() {
  return still_open(
      static_cast<int>(available(::syscall(SYS_userfaultfd, O_CLOEXEC), "userfaultfd")));
}

Verify perf() {
  perf_event_attr attributes{};
  attributes.size = sizeof attributes;
  attributes.type = PERF_TYPE_SOFTWARE;
  attributes.config = PERF_COUNT_SW_TASK_CLOCK;
  return still_open(static_cast<int>(
      available(::syscall(SYS_perf_event_open, &attributes, 0, -1, -1, 0), "perf_event_open")));
}

Verify bpf() {
  bpf_attr attributes{};
  attributes.map_type = BPF_MAP_TYPE_ARRAY;
  attributes.key_size = 4;
  attributes.value_size = 4;
  attributes.max_entries = 1;
  return still_open(static_cast<int>(
      available(::syscall(SYS_bpf, BPF_MAP_CREATE, &attributes, sizeof attributes), "bpf")));
}

Verify kvm() {
  return still_open(available(::open("/dev/kvm", O_RDWR), "/dev/kvm"));
}

Verify inotify() {
  const int fd = called(::inotify_init(), "inotify_init");
  called(::inotify_add_watch(fd, "/proc", IN_CREATE), "inotify_add_watch");
  return still_open(fd);
}

Verify fanotify() {
  return still_open(available(::fanotify_init(FAN_CLASS_NOTIF, O_RDONLY), "fanotify_init"));
}

Verify pidfd() {
  return still_open(
      static_cast<int>(available(::syscall(SYS_pidfd_open, ::getppid(), 0), "pidfd")));
}

Verify mqueue() {
  const std::string name = "/libmigrate-" + std::to_string(::getpid());
  const mqd_t queue =
      available(::mq_open(name.c_str(), O_RDWR | O_CREAT, 0600, nullptr), "mq_open");
  called(::mq_unlink(name.c_str()), "mq_unlink");
  return [queue] { called(::mq_send(queue, "x", 1, 0), "mq_send"); };
}

Verify aio() {
  aio_context_t context = 0;
  available(::syscall(SYS_io_setup, 8, &context), "io_setup");
  return [context] { called(::syscall(SYS_io_destroy, context), "io_destroy"); };
}

Verify shared_memory_outside() {
  auto* memory = static_cast<std::atomic<int>*>(
      check::map_memory(8192, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS));
  start_outsider([memory] { *memory = 5; });
  return [memory] { CHECK_EQUAL(memory->load(), 5); };
}

Verify memfd_outside() {
  const int fd = called(::memfd_create("shared", 0), "memfd_create");
  called(::ftruncate(fd, 8192), "ftruncate");
  auto* memory = static_cast<std::atomic<int>*>(
      check::map_memory(8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd));
  ::close(fd);
  start_outsider([memory] { *memory = 6; });
  return [memory] { CHECK_EQUAL(memory->load(), 6); };
}

Verify children() {
  const pid_t child = called(::fork(), "fork");
  if (child == 0) {
    while (!check::stopping()) {
      check::sleep_ns(10 * check::kMillisecond);
    }
    ::_exit(3);
  }
  return [child] {
    int status = 0;
    CHECK_EQUAL(::waitpid(child, &status, 0), child);
    CHECK_EQUAL(WEXITSTATUS(status), 3);
  };
}

Verify traced() {
  called(::prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0) + 2, "prctl(PR_SET_PTRACER)");
  const pid_t self = ::getpid();
  start_outsider([self] { available(::ptrace(PTRACE_SEIZE, self, 0, 0), "ptrace"); });
  return [] { CHECK(check::read_text("/proc/self/status").find("TracerPid:") > 0); };
}

Verify seccomp() {
  called(::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl(PR_SET_NO_NEW_PRIVS)");
  sock_filter allow{.code = BPF_RET | BPF_K, .jt = 0, .jf = 0, .k = SECCOMP_RET_ALLOW};
  const sock_fprog program{.len = 1, .filter = &allow};
  available(::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0), "seccomp");
  return [] { CHECK_EQUAL(::prctl(PR_GET_SECCOMP), SECCOMP_MODE_FILTER); };
}

template <int Flags>
Verify own_namespace() {
  available(::unshare(Flags), "unshare");
  return [] {};
}

Verify changed_root() {
  const std::size_t slash = check::stop_file.rfind('/');
  called(::chroot(check::stop_file.substr(0, slash).c_str()), "chroot");
  called(::chdir("/"), "chdir");
  check::stop_file = check::stop_file.substr(slash);
  return [] {};
}

int make_file(const char* name) {
  return called(::open(check::work_path(name).c_str(), O_RDWR | O_CREAT, 0600), "open");
}

Verify flock_held() {
  const int fd = make_file("flock");
  called(::flock(fd, LOCK_EX), "flock");
  return [fd] { called(::flock(fd, LOCK_UN), "flock"); };
}

template <int Command>
Verify record_lock() {
  const int fd = make_file("record_lock");
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_len = 100;
  called(::fcntl(fd, Command, &lock), "fcntl");
  return still_open(fd);
}

Verify lease() {
  const int fd = make_file("lease");
  available(::fcntl(fd, F_SETLEASE, F_WRLCK), "fcntl(F_SETLEASE)");
  return [fd] { CHECK_EQUAL(::fcntl(fd, F_GETLEASE), F_WRLCK); };
}

/// It has another name, which nobody can know.
Verify deleted_file() {
  const int fd = make_file("deleted");
  called(::link(check::work_path("deleted").c_str(), check::work_path("other").c_str()), "link");
  called(::unlink(check::work_path("deleted").c_str()), "unlink");
  return [fd] { CHECK_EQUAL(::write(fd, "x", 1), 1); };
}

Verify deleted_mapping() {
  const int fd = make_file("deleted");
  called(::ftruncate(fd, 8192), "ftruncate");
  auto* memory =
      static_cast<char*>(check::map_memory(8192, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd));
  ::close(fd);
  called(::link(check::work_path("deleted").c_str(), check::work_path("other").c_str()), "link");
  called(::unlink(check::work_path("deleted").c_str()), "unlink");
  return [memory] { memory[5000] = 1; };
}

/// Runs on from a copy of its own program, which then gets another name, and another file its own.
Verify deleted_executable() {
  const std::string copy = check::work_path("copy");
  if (check::read_text("/proc/self/cmdline").starts_with(copy)) {
    called(::link(copy.c_str(), check::work_path("other").c_str()), "link");
    called(::unlink(copy.c_str()), "unlink");
    return [] {};
  }
  check::write_text(copy, check::read_text("/proc/self/exe"));
  called(::chmod(copy.c_str(), 0755), "chmod");
  ::execl(copy.c_str(), copy.c_str(), "deleted_executable", check::stop_file.c_str(), nullptr);
  check::fail("exec of %s: %s", copy.c_str(), std::strerror(errno));
}

Verify hugetlb() {
  const std::string folder = check::work_path("huge");
  called(::mkdir(folder.c_str(), 0755), "mkdir");
  if (::mount("none", folder.c_str(), "hugetlbfs", 0, nullptr) != 0) {
    ::rmdir(folder.c_str());
    available(-1, "mount of hugetlbfs");
  }
  const int fd = called(::open((folder + "/file").c_str(), O_CREAT | O_RDWR, 0600), "open");
  return [fd, folder] {
    CHECK_EQUAL(::fcntl(fd, F_GETFD), 0);
    ::umount2(folder.c_str(), MNT_DETACH);
    ::rmdir(folder.c_str());
  };
}

/// A pipe with both ends inside, one of which somebody outside holds as well.
Verify pipe_shared() {
  std::array<int, 2> ends{};
  called(::pipe(ends.data()), "pipe");
  start_outsider([ends] { ::close(ends[0]); });
  return [ends] {
    char letter = 0;
    CHECK_EQUAL(::write(ends[1], "x", 1), 1);
    CHECK_EQUAL(::read(ends[0], &letter, 1), 1);
  };
}

/// A counter that somebody else, who is no ancestor, counts too.
Verify eventfd_shared() {
  const int event = called(::eventfd(3, 0), "eventfd");
  start_outsider([] {});
  return [event] {
    std::uint64_t value = 0;
    CHECK_EQUAL(::read(event, &value, sizeof value), 8);
    CHECK_EQUAL(value, 3U);
  };
}

/// A file whose position somebody else moves too.
Verify file_shared() {
  const int fd = make_file("shared");
  start_outsider([fd] { called(::lseek(fd, 3, SEEK_SET), "lseek"); });
  return still_open(fd);
}

/// Beyond the end of its file, memory raises SIGBUS, and shows what is appended.
Verify mapping_beyond_end() {
  const int fd = make_file("short");
  called(::ftruncate(fd, 5000), "ftruncate");
  auto* memory =
      static_cast<char*>(check::map_memory(16384, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd));
  memory[0] = 1;
  return [memory, fd] {
    called(::ftruncate(fd, 16384), "ftruncate");
    CHECK_EQUAL(memory[10000], 0);
  };
}

Verify packet_pipe() {
  std::array<int, 2> ends{};
  called(::pipe2(ends.data(), O_DIRECT), "pipe2(O_DIRECT)");
  ::close(ends[0]);
  return still_open(ends[1]);
}

Verify proc_file() {
  return still_open(called(::open("/proc/self/comm", O_WRONLY), "open"));
}

Verify path_descriptor() {
  return still_open(called(::open("/dev/stdin", O_PATH | O_NOFOLLOW), "open"));
}

Verify landlock() {
  const std::uint64_t handled_access = 1;
  return still_open(static_cast<int>(
      available(::syscall(SYS_landlock_create_ruleset, &handled_access, sizeof handled_access, 0),
                "landlock_create_ruleset")));
}

Verify secret_memory() {
  const int fd = static_cast<int>(available(::syscall(SYS_memfd_secret, 0), "memfd_secret"));
  called(::ftruncate(fd, 4096), "ftruncate");
  check::map_memory(4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd);
  ::close(fd);
  return [] {};
}

/// A setting of the process that only it can read: refused when it is stopped, and not before.
Verify hidden(std::int64_t set, std::function<std::int64_t()> get) {
  available(set, "set it");
  return [get, before = get()] { CHECK_EQUAL(get(), before); };
}

Verify hidden_call_dispatch() {
  static char selector = 0;  // SYSCALL_DISPATCH_FILTER_ALLOW
  available(::prctl(PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_ON, 0, 0, &selector),
            "PR_SET_SYSCALL_USER_DISPATCH");
  return
      [] { CHECK_EQUAL(::prctl(PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_OFF, 0, 0, 0), 0); };
}

Verify hidden_execution() {
  constexpr int kSetMdwe = 65;  // and 66 reads it
  return hidden(::prctl(kSetMdwe, 1, 0, 0, 0), [] { return ::prctl(kSetMdwe + 1, 0, 0, 0, 0); });
}

Verify hidden_segments() {
  // A struct user_desc: number, base, limit in pages, flags of a 32-bit data segment.
  const std::array<std::uint32_t, 4> segment{0, 0, 0xfffff, 0x51};
  return hidden(::syscall(SYS_modify_ldt, 1, &segment, sizeof segment), [] {
    std::array<char, 8> entry{};
    return ::syscall(SYS_modify_ldt, 0, entry.data(), entry.size());
  });
}

Verify unborn_namespace() {
  available(::unshare(CLONE_NEWPID), "unshare(CLONE_NEWPID)");
  return [] {};
}

/// Everything at once: a verdict names all, not the first.
Verify several() {
  std::array<Verify, 4> parts = {inotify(), netlink(), flock_held(), proc_file()};
  return [parts] {
    for (const Verify& part : parts) {
      part();
    }
  };
}

constexpr Refused kRefused[] = {
    {"sysv_shm_attached", "SYSV_SHM", sysv_shm_attached},
    {"sysv_shm_owned", "SYSV_SHM", sysv_shm_owned},
    {"sysv_sem_undo", "SYSV_SEM", sysv_sem_undo},
    {"device", "DEVICE", device},
    {"terminal_unopened", "TERMINAL_PAIR", refused::terminal_unopened},
    {"terminal_packet", "TERMINAL_BUSY", refused::terminal_packet},
    {"raw", "SOCKET_KIND", raw},
    {"member", "SOCKET_SETTING", member},
    {"corked", "SOCKET_UNSENT", corked},
    {"unix_socket", "SOCKET", unix_socket},
    {"netlink", "SOCKET_KIND", netlink},
    {"descriptor_under_way", "SOCKET", descriptor_under_way},
    {"uring", "IO_URING", uring},
    {"userfault", "USERFAULTFD", userfault},
    {"perf", "PERF", perf},
    {"bpf", "BPF", bpf},
    {"kvm", "KVM", kvm},
    {"inotify", "INOTIFY", inotify},
    {"fanotify", "FANOTIFY", fanotify},
    {"pidfd", "PIDFD", pidfd},
    {"mqueue", "MQUEUE", mqueue},
    {"aio", "AIO", aio},
    {"shared_memory_outside", "SHARED_MEMORY_OUTSIDE", shared_memory_outside},
    {"memfd_outside", "SHARED_MEMORY_OUTSIDE", memfd_outside},
    {"children", "CHILDREN", children},
    {"traced", "TRACED", traced},
    {"seccomp", "SECCOMP", seccomp},
    {"network_namespace", "NAMESPACE", own_namespace<CLONE_NEWNET>},
    {"uts_namespace", "NAMESPACE", own_namespace<CLONE_NEWUTS>},
    {"mount_namespace", "NAMESPACE", own_namespace<CLONE_NEWNS>},
    {"ipc_namespace", "NAMESPACE", own_namespace<CLONE_NEWIPC>},
    {"changed_root", "CHROOT", changed_root},
    {"flock_held", "FILE_LOCK", flock_held},
    {"record_lock", "FILE_LOCK", record_lock<F_SETLK>},
    {"description_lock", "FILE_LOCK", record_lock<F_OFD_SETLK>},
    {"lease", "FILE_LOCK,ASYNC_IO", lease},
    {"deleted_file", "DELETED_FILE", deleted_file},
    {"deleted_mapping", "DELETED_FILE", deleted_mapping},
    {"deleted_executable", "DELETED_FILE", deleted_executable},
    {"hugetlb", "HUGETLB", hugetlb},
    {"pipe_shared", "PIPE_SHARED", pipe_shared},
    {"eventfd_shared", "SHARED_FILE", eventfd_shared},
    {"file_shared", "SHARED_FILE", file_shared},
    {"mapping_beyond_end", "UNKNOWN_MAPPING", mapping_beyond_end},
    {"packet_pipe", "UNKNOWN_DESCRIPTOR", packet_pipe},
    {"proc_file", "PROC_FILE", proc_file},
    {"path_descriptor", "PATH_DESCRIPTOR", path_descriptor},
    {"landlock", "UNKNOWN_DESCRIPTOR", landlock},
    {"secret_memory", "UNKNOWN_MAPPING", secret_memory},
    {"unborn_namespace", "NAMESPACE", unborn_namespace},
    {"hidden_call_dispatch", "UNKNOWN_ATTRIBUTE", hidden_call_dispatch},
    {"hidden_execution", "UNKNOWN_ATTRIBUTE", hidden_execution},
    {"hidden_segments", "UNKNOWN_ATTRIBUTE", hidden_segments},
    {"memory_limit", "RLIMIT_REACHED", refused::memory_limit},
    {"data_limit", "RLIMIT_REACHED", refused::data_limit},
    {"descriptor_limit", "RLIMIT_REACHED", refused::descriptor_limit},
    {"many_timers", "TIMERS", refused::many_timers},
    {"hidden_signals", "SIGNALS_PENDING", refused::hidden_signals},
    {"memfd_in_pieces", "LARGE_MEMFD", refused::memfd_in_pieces},
    {"several", "INOTIFY,SOCKET_KIND,FILE_LOCK,PROC_FILE", several},
};

/// Some work that must go on, and its result.
std::uint64_t steps_done = 0;

void work() {
  check::Random random(1);
  for (steps_done = 0; !check::stopping(); ++steps_done) {
    random.next();
    check::sleep_ns(check::kMillisecond / 10);
  }
  check::Random again(1);
  for (std::uint64_t step = 0; step < steps_done; ++step) {
    again.next();
  }
  CHECK_EQUAL(random.next(), again.next());
}

template <std::size_t... Index>
constexpr auto make_properties(std::index_sequence<Index...>) {
  return std::array<check::Property, sizeof...(Index)>{
      check::Property{kRefused[Index].name, [] {
                        const Verify verify = kRefused[Index].set_up();
                        check::ready();
                        work();
                        verify();
                      }}...};
}

constexpr auto kProperties = make_properties(std::make_index_sequence<std::size(kRefused)>{});

}  // namespace

int main(int argc, char** argv) {
  if (argc == 2 && std::strcmp(argv[1], "--list") == 0) {
    for (const Refused& refused : kRefused) {
      std::printf("%s %s\n", refused.name, refused.codes);
    }
    return 0;
  }
  return check::main(argc, argv, kProperties);
}
