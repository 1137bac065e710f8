// One process per refusal: what refuses it names its code.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/perf_event.h>
#include <linux/seccomp.h>
#include <mqueue.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/fanotify.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string_view>
#include <thread>

#include "libmigrate/image/refusal.h"
#include "pager/page_range.h"
#include "tests/libmigrate/inspect/held_process.h"

namespace migrate {
namespace {

using test::HeldProcess;

struct Case {
  const char* name;
  std::set<std::string> codes;
  void (*prepare)();
};

// One path for the test and the processes that it holds, another for tests that run beside it.
const std::string& scratch() {
  static const std::string kPath =
      std::filesystem::temp_directory_path() / ("refusals_test_" + std::to_string(::getpid()));
  return kPath;
}

int make_file() {
  return ::open(scratch().c_str(), O_RDWR | O_CREAT, 0600);
}

// It has a name still, but another one.
void give_another_name() {
  const std::string other = scratch() + ".other";
  ::unlink(other.c_str());
  ::link(scratch().c_str(), other.c_str());
  ::unlink(scratch().c_str());
}

void* map(int flags, int fd = -1) {
  return ::mmap(nullptr, kPageBytes, PROT_READ | PROT_WRITE, flags, fd, 0);
}

[[noreturn]] void wait_forever() {
  for (;;) {
    ::pause();
  }
}

void unmap_named(std::string_view name) {
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    std::uint64_t start = 0;
    std::uint64_t end = 0;
    if (line.ends_with(name) && std::sscanf(line.c_str(), "%lx-%lx", &start, &end) == 2) {
      ::syscall(SYS_munmap, start, end - start);
    }
  }
}

// A child that dies with its parent.
pid_t fork_child() {
  const pid_t parent = ::getpid();
  const pid_t child = ::fork();
  if (child == 0) {
    ::syscall(SYS_close_range, 0, ~0U, 0);
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) {
      ::_exit(0);
    }
    wait_forever();
  }
  return child;
}

const std::array kCases = std::to_array<Case>({
    {"Socket", {"SOCKET_KIND"}, [] { ::socket(AF_NETLINK, SOCK_RAW, 0); }},
    {"Inotify", {"INOTIFY"}, [] { ::inotify_add_watch(::inotify_init1(0), "/proc", IN_CREATE); }},
    {"Fanotify", {"FANOTIFY"}, [] { ::fanotify_init(0, 0); }},
    {"Pidfd", {"PIDFD"}, [] { ::syscall(SYS_pidfd_open, ::getppid(), 0); }},
    {"Userfaultfd", {"USERFAULTFD"}, [] { ::syscall(SYS_userfaultfd, 0); }},
    {"Path", {"PATH_DESCRIPTOR"}, [] { ::open("/dev/stdin", O_PATH | O_NOFOLLOW); }},
    {"Proc", {"PROC_FILE"}, [] { ::open("/proc/self/comm", O_WRONLY); }},
    {"Namespace file",
     {"PROC_FILE", "UNKNOWN_DESCRIPTOR"},
     [] { ::open("/proc/self/ns/net", O_RDONLY); }},
    {"Device", {"DEVICE"}, [] { ::open("/dev/kmsg", O_RDONLY); }},
    {"Terminal", {"TERMINAL_PAIR"}, [] { ::open("/dev/ptmx", O_RDWR | O_NOCTTY); }},
    {"Lock", {"FILE_LOCK"}, [] { ::flock(make_file(), LOCK_EX); }},
    {"Posix lock",
     {"FILE_LOCK"},
     [] {
       struct flock lock {};
       lock.l_type = F_WRLCK;
       ::fcntl(make_file(), F_SETLK, &lock);
     }},
    {"File with another name",
     {"DELETED_FILE"},
     [] {
       make_file();
       give_another_name();
     }},
    {"Replaced file",
     {"DELETED_FILE"},
     [] {
       make_file();
       give_another_name();
       ::close(::open(scratch().c_str(), O_RDWR | O_CREAT, 0600));
     }},
    {"Deleted mapped file",
     {"DELETED_FILE"},
     [] {
       const int file = make_file();
       map(MAP_PRIVATE, file);
       ::close(file);
       give_another_name();
     }},
    {"Queue",
     {"MQUEUE"},
     [] {
       ::mq_open("/refusals_test", O_CREAT | O_RDWR, 0600, nullptr);
       ::mq_unlink("/refusals_test");
     }},
    {"Async",
     {"ASYNC_IO", "TERMINAL_PAIR"},
     [] {
       const int master = ::open("/dev/ptmx", O_RDWR | O_NOCTTY);
       ::fcntl(master, F_SETFL, O_ASYNC);
     }},
    {"Stale watch",
     {"EPOLL_STALE"},
     [] {
       const int poll = ::epoll_create1(0);
       const int event = ::eventfd(0, 0);
       epoll_event watch{EPOLLIN, {.fd = event}};
       ::epoll_ctl(poll, EPOLL_CTL_ADD, event, &watch);
       ::dup(event);
       ::dup2(0, event);
     }},
    {"Shared pipe",
     {"CHILDREN", "PIPE_SHARED"},
     [] {
       std::array<int, 2> ends{};
       if (::pipe(ends.data()) == 0 && ::fork() == 0) {
         ::prctl(PR_SET_PDEATHSIG, SIGKILL);
         ::close(1000);  // that of HeldProcess
         wait_forever();
       }
     }},
    {"Attached segment",
     {"SYSV_SHM"},
     [] {
       const int id = ::shmget(IPC_PRIVATE, kPageBytes, 0600);
       ::shmat(id, nullptr, 0);
       ::shmctl(id, IPC_RMID, nullptr);
     }},
    {"Children", {"CHILDREN"}, [] { fork_child(); }},
    {"Seccomp",
     {"SECCOMP"},
     [] {
       sock_filter allow{BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW};
       const sock_fprog program{1, &allow};
       ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
       ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
     }},
    {"Network namespace", {"NAMESPACE"}, [] { ::unshare(CLONE_NEWNET); }},
    {"Chroot",
     {"CHROOT", "DELETED_FILE"},
     [] {
       if (::chroot("/tmp") != 0) {
         ::_exit(2);
       }
     }},
    {"Thread with files of its own",
     {"THREAD_UNSHARED"},
     [] {
       std::thread([] {
         ::unshare(CLONE_FILES);
         ::close(1000);  // that of HeldProcess
         wait_forever();
       }).detach();
       std::this_thread::sleep_for(std::chrono::milliseconds(50));
     }},
    {"Io_uring",
     {"IO_URING"},
     [] {
       std::array<char, 120> parameters{};
       const long ring = ::syscall(SYS_io_uring_setup, 4, parameters.data());
       ::mmap(nullptr, kPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED, static_cast<int>(ring), 0);
     }},
    {"Aio",
     {"AIO"},
     [] {
       unsigned long context = 0;
       ::syscall(SYS_io_setup, 4, &context);
     }},
    {"Perf",
     {"PERF"},
     [] {
       perf_event_attr attributes{};
       attributes.size = sizeof attributes;
       attributes.type = PERF_TYPE_SOFTWARE;
       attributes.config = PERF_COUNT_SW_CPU_CLOCK;
       ::syscall(SYS_perf_event_open, &attributes, 0, -1, -1, 0);
     }},
    {"Without vDSO", {"NO_VDSO"}, [] { unmap_named("[vdso]"); }},
    {"Without vvar", {"NO_VDSO"}, [] { unmap_named("[vvar]"); }},
});

class Refusals : public testing::TestWithParam<Case> {};

TEST_P(Refusals, NamesTheCode) {
  scratch();  // Named before the fork, so after this process.
  const HeldProcess process(GetParam().prepare);
  const Inspection inspection = test::inspect(process.pid());
  ::unlink(scratch().c_str());
  ::unlink((scratch() + ".other").c_str());
  if (inspection.refusals.empty() &&
      std::set<std::string>{"FANOTIFY", "IO_URING", "AIO", "PERF", "USERFAULTFD", "MQUEUE"}
          .contains(*GetParam().codes.begin())) {
    GTEST_SKIP() << "this kernel does not offer it";
  }
  std::set<std::string> allowed = GetParam().codes;
  const std::set<std::string> found = test::codes(inspection.refusals);
  EXPECT_FALSE(found.empty());
  for (const std::string& code : found) {
    EXPECT_TRUE(allowed.contains(code)) << test::text(inspection.refusals);
  }
  for (const wire::Refusal& refusal : inspection.refusals) {
    EXPECT_FALSE(refusal.reason().empty());
    EXPECT_FALSE(refusal.object().empty());
    const bool may_pass = refusal.code() == "FILE_LOCK" || refusal.code() == "CHILDREN";
    EXPECT_EQ(is_transient(refusal), may_pass);
  }
}

INSTANTIATE_TEST_SUITE_P(All, Refusals, testing::ValuesIn(kCases), [](const auto& one) {
  std::string name = one.param.name;
  std::erase_if(name, [](char letter) { return std::isalnum(letter) == 0; });
  return name;
});

TEST(Refusals, AllAreListed) {
  const HeldProcess process([] {
    ::socket(AF_UNIX, SOCK_STREAM, 0);
    ::inotify_add_watch(::inotify_init1(0), "/proc", IN_CREATE);
    ::socket(AF_NETLINK, SOCK_RAW, 0);
    ::flock(::open("/tmp", O_RDONLY), LOCK_SH);
  });
  const Inspection inspection = test::inspect(process.pid());
  EXPECT_EQ(inspection.refusals.size(), 4U) << test::text(inspection.refusals);
  EXPECT_FALSE(all_transient(inspection.refusals));
}

TEST(Refusals, MemorySharedWithAnother) {
  void* memory = map(MAP_SHARED | MAP_ANONYMOUS);
  {
    const HeldProcess process([] {});
    const Inspection inspection = test::inspect(process.pid());
    EXPECT_TRUE(inspection.refusals.empty()) << "our own process is passed over";
    const HeldProcess another([] {});
    EXPECT_EQ(test::codes(test::inspect(process.pid()).refusals),
              std::set<std::string>{"SHARED_MEMORY_OUTSIDE"});
  }
  ::munmap(memory, kPageBytes);
}

TEST(Refusals, OwnedSegmentAndSemaphores) {
  // Whoever has an undo list is refused while there are semaphores: tests beside this one, too.
  ASSERT_EQ(::unshare(CLONE_NEWIPC), 0);
  static int* ids = static_cast<int*>(map(MAP_SHARED | MAP_ANONYMOUS));
  const HeldProcess process([] {
    ids[0] = ::shmget(IPC_PRIVATE, kPageBytes, 0600);
    ids[1] = ::semget(IPC_PRIVATE, 1, 0600);
    sembuf operation{0, 1, SEM_UNDO};
    ::semop(ids[1], &operation, 1);
  });
  const Inspection inspection = test::inspect(process.pid());
  ::shmctl(ids[0], IPC_RMID, nullptr);
  ::semctl(ids[1], 0, IPC_RMID);
  ::munmap(ids, kPageBytes);
  EXPECT_EQ(test::codes(inspection.refusals), (std::set<std::string>{"SYSV_SEM", "SYSV_SHM"}))
      << test::text(inspection.refusals);
}

TEST(Refusals, SemaphoresThatNobodyHasUsedYet) {
  ASSERT_EQ(::unshare(CLONE_NEWIPC), 0);
  static int* id = static_cast<int*>(map(MAP_SHARED | MAP_ANONYMOUS));
  const HeldProcess process([] { *id = ::semget(IPC_PRIVATE, 1, 0600); });
  const Inspection inspection = test::inspect(process.pid());
  ::semctl(*id, 0, IPC_RMID);
  ::munmap(id, kPageBytes);
  EXPECT_EQ(test::codes(inspection.refusals), std::set<std::string>{"SYSV_SEM"})
      << test::text(inspection.refusals);
}

TEST(Refusals, TracedStoppedAndEnded) {
  const HeldProcess process([] {});
  ::kill(process.pid(), SIGSTOP);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  const Inspection stopped = test::inspect(process.pid());
  EXPECT_EQ(test::codes(stopped.refusals), std::set<std::string>{"STOPPED"});
  EXPECT_TRUE(all_transient(stopped.refusals));
  ::kill(process.pid(), SIGCONT);
  process.freeze();
  EXPECT_EQ(test::codes(test::inspect(process.pid()).refusals), std::set<std::string>{"TRACED"});
  const HeldProcess ended([] {});
  ::kill(ended.pid(), SIGKILL);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(test::codes(test::inspect(ended.pid()).refusals), std::set<std::string>{"ZOMBIE"});
}

TEST(Refusals, KernelThread) {
  constexpr pid_t kKthreadd = 2;
  const auto inspector = ProcessInspector::create(kKthreadd, {});
  if (!inspector) {
    GTEST_SKIP() << "kernel threads are not in this PID namespace";
  }
  const std::set<std::string> found = test::codes(test::inspect(kKthreadd).refusals);
  if (!found.contains("KERNEL_THREAD")) {
    GTEST_SKIP() << "pid 2 is no kernel thread here";
  }
}

TEST(Refusals, TableIsComplete) {
  for (const RefusalKind& kind : refusal_kinds()) {
    EXPECT_FALSE(kind.reason.empty()) << kind.code;
  }
}

}  // namespace
}  // namespace migrate
