// Every call that changes or looks at a mapping, on memory that has not come yet, in the process
// and in a child of it. What each does is said in docs/owed-memory.md.
#include <linux/userfaultfd.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include <array>

#include "tests/programs/check.h"

namespace {

using check::called;
using check::stopping;

constexpr std::size_t kPage = 4096;
constexpr std::size_t kMemoryPages = 8192;

/// Not in every C library's headers.
constexpr int kSoftOffline = 101;
constexpr int kHwPoison = 100;
constexpr int kDontneedLocked = 24;
constexpr int kCollapse = 25;
constexpr int kGuardInstall = 102;
constexpr int kGuardRemove = 103;
constexpr int kMemoryMerge = 67;  // PR_SET_MEMORY_MERGE
constexpr long kMapShadowStack = 453;
constexpr long kSetHomeNode = 450;
constexpr long kSeal = 462;

/// Memory of which each page says where it was before the move. Hands out pages never touched
/// since.
class Owed {
 public:
  explicit Owed(int flags = MAP_PRIVATE)
      : x_base(static_cast<char*>(check::map_memory(kMemoryPages * kPage, PROT_READ | PROT_WRITE,
                                                    flags | MAP_ANONYMOUS))) {
    for (std::size_t page = 0; page < kMemoryPages; ++page) {
      word(x_base + page * kPage) = value(x_base + page * kPage);
      word(x_base + page * kPage + kPage - 8) = ~value(x_base + page * kPage);
    }
  }
  char* take(std::size_t pages) {
    x_next += pages + 3;  // apart, so that no prefetch brings the next
    CHECK(x_next <= kMemoryPages);
    return x_base + (x_next - pages) * kPage;
  }
  void skip_to_half() { x_next = kMemoryPages / 2; }
  char* base() const { return x_base; }

  static std::uint64_t& word(char* at) { return *reinterpret_cast<std::uint64_t*>(at); }
  static std::uint64_t value(const char* page) { return reinterpret_cast<std::uint64_t>(page) * 3; }

 private:
  char* x_base;
  std::size_t x_next = 0;
};

/// The pages are what they were at `original` (default: here).
void expect_kept(char* at, std::size_t pages, const char* what, const char* original = nullptr) {
  for (std::size_t page = 0; page < pages; ++page) {
    char* here = at + page * kPage;
    const std::uint64_t value = Owed::value((original != nullptr ? original : at) + page * kPage);
    if (Owed::word(here) != value || Owed::word(here + kPage - 8) != ~value) {
      check::fail("%s: page %zu of %zu is %llx", what, page, pages,
                  static_cast<unsigned long long>(Owed::word(here)));
    }
  }
}

void expect_zero(char* at, std::size_t pages, const char* what) {
  for (std::size_t offset = 0; offset < pages * kPage; offset += 8) {
    if (Owed::word(at + offset) != 0) {
      check::fail("%s: page %zu of %zu is %llx, not zero", what, offset / kPage, pages,
                  static_cast<unsigned long long>(Owed::word(at + offset)));
    }
  }
}

template <typename Action>
void in_child(Action action) {
  const pid_t child = called(::fork(), "fork");
  if (child == 0) {
    action();
    ::_exit(0);
  }
  int status = 0;
  CHECK_EQUAL(called(::waitpid(child, &status, 0), "waitpid"), child);
  if (status != 0) {
    check::fail("a child ended with status %x", static_cast<unsigned>(status));
  }
}

/// Right after the last move.
void wait_until_told() {
  check::ready();
  while (!stopping()) {
    check::sleep_ns(5 * check::kMillisecond);
  }
}

/// In a child, and then in the process.
template <typename Action>
void in_both(Owed& owed, Action action) {
  in_child([&] { action(owed); });
  // What the child took has come for both.
  owed.skip_to_half();
  for (int i = 0; i < 2; ++i) {
    action(owed);
  }
}

template <typename Action>
void when_told(Owed& owed, Action action) {
  wait_until_told();
  in_both(owed, action);
}

enum class Effect : std::uint8_t { kKeeps, kDrops, kFrees };
struct Advice {
  int value;
  const char* name;
  Effect effect;
};
/// All of the kernel's headers but HWPOISON and SOFT_OFFLINE, which take memory from the machine,
/// and the two of guards. A kernel may lack some (EINVAL): then nothing changes.
constexpr std::array<Advice, 26> kAdvices = {{
    {MADV_NORMAL, "NORMAL", Effect::kKeeps},
    {MADV_RANDOM, "RANDOM", Effect::kKeeps},
    {MADV_SEQUENTIAL, "SEQUENTIAL", Effect::kKeeps},
    {MADV_WILLNEED, "WILLNEED", Effect::kKeeps},
    {MADV_DONTNEED, "DONTNEED", Effect::kDrops},
    {MADV_FREE, "FREE", Effect::kFrees},
    {MADV_REMOVE, "REMOVE", Effect::kDrops},  // EINVAL for private memory
    {MADV_DONTFORK, "DONTFORK", Effect::kKeeps},
    {MADV_DOFORK, "DOFORK", Effect::kKeeps},
    {MADV_MERGEABLE, "MERGEABLE", Effect::kKeeps},
    {MADV_UNMERGEABLE, "UNMERGEABLE", Effect::kKeeps},
    {MADV_HUGEPAGE, "HUGEPAGE", Effect::kKeeps},
    {MADV_NOHUGEPAGE, "NOHUGEPAGE", Effect::kKeeps},
    {MADV_DONTDUMP, "DONTDUMP", Effect::kKeeps},
    {MADV_DODUMP, "DODUMP", Effect::kKeeps},
    {MADV_WIPEONFORK, "WIPEONFORK", Effect::kKeeps},
    {MADV_KEEPONFORK, "KEEPONFORK", Effect::kKeeps},
    {20, "COLD", Effect::kKeeps},
    {21, "PAGEOUT", Effect::kKeeps},
    {22, "POPULATE_READ", Effect::kKeeps},
    {23, "POPULATE_WRITE", Effect::kKeeps},
    {kDontneedLocked, "DONTNEED_LOCKED", Effect::kDrops},
    {kCollapse, "COLLAPSE", Effect::kKeeps},
    {26, "26", Effect::kKeeps},  // Not there yet in Linux 6.18: whoever adds it looks here.
    {kHwPoison - 1, "99", Effect::kKeeps},
    {kGuardRemove + 1, "104", Effect::kKeeps},
}};

void expect_advised(char* at, std::size_t pages, const Advice& advice, bool done) {
  for (std::size_t page = 0; page < pages; ++page) {
    char* here = at + page * kPage;
    const bool may_keep = advice.effect == Effect::kFrees && Owed::word(here) != 0;
    if (!done || advice.effect == Effect::kKeeps || may_keep) {
      expect_kept(here, 1, advice.name);
    } else {
      expect_zero(here, 1, advice.name);
    }
  }
}

void advices() {
  Owed owed;
  when_told(owed, [](Owed& memory) {
    for (const Advice& advice : kAdvices) {
      char* at = memory.take(20);
      const bool done = ::madvise(at, 20 * kPage, advice.value) == 0;
      expect_advised(at, 10, advice, done);
      if (advice.value != MADV_DONTFORK && advice.value != MADV_WIPEONFORK) {
        in_child([&] { expect_advised(at, 20, advice, done); });
      }
      expect_advised(at, 20, advice, done);
    }
  });
}

/// Of another process or, by newer kernels, of the caller.
void process_advices() {
  Owed owed;
  when_told(owed, [](Owed& memory) {
    const int self = static_cast<int>(called(::syscall(SYS_pidfd_open, ::getpid(), 0), "pidfd"));
    for (const Advice& advice : kAdvices) {
      iovec piece = {.iov_base = memory.take(20), .iov_len = 20 * kPage};
      char* at = static_cast<char*>(piece.iov_base);
      const long count = ::syscall(SYS_process_madvise, self, &piece, 1, advice.value, 0);
      expect_advised(at, 20, advice, count == 20 * kPage);
    }
    ::close(self);
  });
}

/// What a child gets is decided by the advice of the moment of the fork.
void forks() {
  Owed owed;
  called(::madvise(owed.base(), kMemoryPages * kPage, MADV_WIPEONFORK), "WIPEONFORK");
  wait_until_told();
  called(::madvise(owed.base(), kMemoryPages * kPage, MADV_KEEPONFORK), "KEEPONFORK");
  in_both(owed, [](Owed& memory) {
    for (int i = 0; i < 20; ++i) {
      char* kept = memory.take(20);
      char* wiped = memory.take(20);
      char* absent = memory.take(20);
      called(::madvise(kept, 20 * kPage, MADV_KEEPONFORK), "KEEPONFORK");
      called(::madvise(wiped, 20 * kPage, MADV_WIPEONFORK), "WIPEONFORK");
      called(::madvise(absent, 20 * kPage, MADV_DONTFORK), "DONTFORK");
      const auto check = [&] {
        expect_kept(kept, 20, "KEEPONFORK");
        expect_zero(wiped, 20, "WIPEONFORK");
        unsigned char present = 0;
        CHECK(::mincore(absent, kPage, &present) == -1 && errno == ENOMEM);
      };
      in_child([&] {
        if (i % 2 == 0) {
          in_child(check);
        }
        check();
      });
      called(::madvise(wiped, 20 * kPage, MADV_KEEPONFORK), "KEEPONFORK");
      called(::madvise(absent, 20 * kPage, MADV_DOFORK), "DOFORK");
      in_child([&] {
        expect_kept(wiped, 20, "WIPEONFORK, KEEPONFORK");
        called(::madvise(absent, 20 * kPage, MADV_KEEPONFORK), "KEEPONFORK");
        in_child([&] { expect_kept(absent, 20, "DONTFORK, DOFORK, KEEPONFORK"); });
      });
      expect_kept(wiped, 20, "wiped in a child");
    }
  });
}

/// These change what may be done with memory, where it may be, or look at it.
void protections() {
  Owed owed;
  when_told(owed, [](Owed& memory) {
    const auto call = [&memory](const char* name, auto change) {
      char* at = memory.take(20);
      static_cast<void>(change(at, 20 * kPage));  // A kernel may lack it.
      static_cast<void>(::mprotect(at, 20 * kPage, PROT_READ | PROT_WRITE));
      static_cast<void>(::munlock(at, 20 * kPage));
      expect_kept(at, 20, name);
    };
    call("mprotect", [](char* at, std::size_t size) { return ::mprotect(at, size, PROT_NONE); });
    call("pkey_mprotect", [](char* at, std::size_t size) {
      return ::syscall(SYS_pkey_mprotect, at, size, PROT_READ, -1);
    });
    call("mlock", [](char* at, std::size_t size) { return ::mlock(at, size); });
    call("mlock2", [](char* at, std::size_t size) { return ::mlock2(at, size, MLOCK_ONFAULT); });
    call("mlockall",
         [](char*, std::size_t) { return ::mlockall(MCL_CURRENT | MCL_ONFAULT) + ::munlockall(); });
    call("PR_SET_VMA",
         [](char* at, std::size_t size) { return ::prctl(0x53564d41, 0, at, size, "name"); });
    call("PR_SET_MEMORY_MERGE", [](char*, std::size_t) {
      return ::prctl(kMemoryMerge, 1, 0, 0, 0) + ::prctl(kMemoryMerge, 0, 0, 0, 0);
    });
    call("PR_SET_THP_DISABLE", [](char*, std::size_t) {
      return ::prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) + ::prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0);
    });
    call("remap_file_pages", [](char* at, std::size_t size) {
      const long result = ::syscall(SYS_remap_file_pages, at, size / 2, 0, size / kPage / 2, 0);
      CHECK(result == -1 && errno == EINVAL);  // private memory
      return result;
    });
    call("mbind", [](char* at, std::size_t size) {
      unsigned long nodes = 1;
      return ::syscall(SYS_mbind, at, size, 1, &nodes, 8, 2);
    });
    call("set_mempolicy_home_node",
         [](char* at, std::size_t size) { return ::syscall(kSetHomeNode, at, size, 0, 0); });
    call("move_pages", [](char* at, std::size_t) {
      void* page = at;
      int node = 0;
      int status = 0;
      return ::syscall(SYS_move_pages, 0, 1, &page, &node, &status, 0);
    });
    call("migrate_pages", [](char*, std::size_t) {
      unsigned long nodes = 1;
      return ::syscall(SYS_migrate_pages, 0, 8, &nodes, &nodes);
    });
    call("map_shadow_stack", [](char* at, std::size_t size) {
      CHECK_EQUAL(::syscall(kMapShadowStack, at, size, 0), -1);
      return -1;
    });
    call("msync", [](char* at, std::size_t size) { return ::msync(at, size, MS_SYNC); });
    call("mincore", [](char* at, std::size_t size) {
      std::array<unsigned char, 20> present{};
      return ::mincore(at, size, present.data());
    });
    call("mseal", [](char* at, std::size_t size) { return ::syscall(kSeal, at, size, 0); });
  });
}

/// What makes, moves or takes mappings away.
void mappings() {
  Owed owed;
  when_told(owed, [](Owed& memory) {
    char* at = memory.take(20);
    called(::munmap(at + 5 * kPage, 5 * kPage), "munmap");
    expect_kept(at, 5, "before munmap");
    expect_kept(at + 10 * kPage, 10, "after munmap");
    at = memory.take(20);
    CHECK_EQUAL(::mmap(at + 5 * kPage, 5 * kPage, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0),
                at + 5 * kPage);
    expect_zero(at + 5 * kPage, 5, "mmap over it");
    expect_kept(at + 10 * kPage, 10, "after mmap");
    const int segment = called(::shmget(IPC_PRIVATE, 5 * kPage, 0600), "shmget");
    at = memory.take(20);
    CHECK_EQUAL(::shmat(segment, at + 5 * kPage, SHM_REMAP), static_cast<void*>(at + 5 * kPage));
    called(::shmctl(segment, IPC_RMID, nullptr), "shmctl");
    expect_zero(at + 5 * kPage, 5, "shmat over it");
    called(::shmdt(at + 5 * kPage), "shmdt");
    expect_kept(at, 5, "before shmat");
    expect_kept(at + 10 * kPage, 10, "after shmat");
    at = memory.take(20);
    CHECK_EQUAL(::mremap(at, 20 * kPage, 10 * kPage, 0), at);
    expect_kept(at, 10, "shrunk");
    at = memory.take(20);
    auto* grown = static_cast<char*>(::mremap(at, 20 * kPage, 40 * kPage, MREMAP_MAYMOVE));
    CHECK(grown != MAP_FAILED);
    expect_kept(grown, 20, "grown", at);
    expect_zero(grown + 20 * kPage, 20, "grown by");
    at = memory.take(20);
    char* over = memory.take(20);
    CHECK_EQUAL(::mremap(at, 20 * kPage, 20 * kPage, MREMAP_MAYMOVE | MREMAP_FIXED, over), over);
    expect_kept(over, 20, "moved over", at);
    at = memory.take(20);
    auto* twin = static_cast<char*>(
        ::mremap(at, 20 * kPage, 20 * kPage, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, nullptr));
    CHECK(twin != MAP_FAILED);
    expect_zero(at, 10, "DONTUNMAP");
    expect_kept(twin, 20, "DONTUNMAP to", at);
    expect_zero(at, 20, "DONTUNMAP");
    at = memory.take(20);
    CHECK(::mremap(at, 0, 20 * kPage, MREMAP_MAYMOVE) == MAP_FAILED && errno == EINVAL);
    expect_kept(at, 20, "old_size 0");
    auto* end = static_cast<char*>(::sbrk(0));
    CHECK(::sbrk(20 * kPage) == end);
    expect_zero(end, 20, "brk");
    CHECK(::sbrk(-20 * static_cast<intptr_t>(kPage)) != reinterpret_cast<void*>(-1));
  });
}

/// Over several mappings mremap says EFAULT. Since Linux 6.17 it moves the mappings before the
/// first that is owed, one by one, and says EFAULT then; each page is here or there, and whole.
void partly_moved() {
  Owed owed;
  when_told(owed, [](Owed& memory) {
    for (const int fresh_at : {0, 4, 8}) {
      char* at = memory.take(12);
      called(::mmap(at + fresh_at * kPage, 4 * kPage, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED
                 ? -1
                 : 0,
             "mmap");
      std::memset(at + fresh_at * kPage, 'f', 4 * kPage);
      auto* to = static_cast<char*>(check::map_memory(12 * kPage));
      called(::munmap(to, 12 * kPage), "munmap");
      const bool moved = ::mremap(at, 12 * kPage, 12 * kPage, MREMAP_MAYMOVE | MREMAP_FIXED, to) ==
                         static_cast<void*>(to);
      CHECK(moved || errno == EFAULT);
      for (int page = 0; page < 12; ++page) {
        unsigned char present = 0;
        const bool here = ::mincore(at + page * kPage, kPage, &present) == 0;
        const bool there = ::mincore(to + page * kPage, kPage, &present) == 0;
        const bool fresh = page >= fresh_at && page < fresh_at + 4;
        CHECK(here != there);
        CHECK(moved || here || (fresh_at == 0 && fresh));
        char* found = (here ? at : to) + page * kPage;
        if (fresh) {
          CHECK_EQUAL(found[17], 'f');
        } else {
          expect_kept(found, 1, "mremap over several", at + page * kPage);
        }
      }
    }
  });
}

/// Memory of a shared object: each mapping of it shows the same.
void shared() {
  Owed owed(MAP_SHARED);
  when_told(owed, [](Owed& memory) {
    for (const Advice& advice : kAdvices) {
      char* at = memory.take(20);
      const bool removes =
          ::madvise(at, 20 * kPage, advice.value) == 0 && advice.value == MADV_REMOVE;
      for (int page = 0; page < 20; ++page) {
        // What was removed while it was owed comes back.
        if (!removes || Owed::word(at + page * kPage) != 0) {
          expect_kept(at + page * kPage, 1, advice.name);
        }
      }
    }
    char* at = memory.take(20);
    auto* twin = static_cast<char*>(::mremap(at, 0, 20 * kPage, MREMAP_MAYMOVE));
    CHECK(twin != MAP_FAILED);
    expect_kept(twin, 10, "old_size 0", at);
    expect_kept(at, 20, "old_size 0, original");
    expect_kept(twin, 20, "old_size 0", at);
    at = memory.take(20);
    twin = static_cast<char*>(
        ::mremap(at, 20 * kPage, 20 * kPage, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, nullptr));
    if (twin != MAP_FAILED) {  // Linux 5.13
      for (int page = 0; page < 10; ++page) {
        expect_kept(at + page * kPage, 1, "DONTUNMAP, original");
      }
      for (int page = 0; page < 20; ++page) {
        expect_kept(twin + page * kPage, 1, "DONTUNMAP", at + page * kPage);
      }
      expect_kept(at, 20, "DONTUNMAP, original");
    }
  });
}

/// No event tells of remap_file_pages, and nothing waits in what it maps: this is lost, and no
/// more.
void shared_remapped() {
  Owed owed(MAP_SHARED);
  when_told(owed, [](Owed& memory) {
    char* at = memory.take(20);
    const auto first = static_cast<std::size_t>(at - memory.base()) / kPage;
    called(::syscall(SYS_remap_file_pages, at, 5 * kPage, 0, first + 10, 0), "remap_file_pages");
    for (int page = 0; page < 5; ++page) {
      if (Owed::word(at + page * kPage) != 0) {
        expect_kept(at + page * kPage, 1, "remap_file_pages", at + (page + 10) * kPage);
      }
    }
    expect_kept(at + 5 * kPage, 5, "beside remap_file_pages");
    expect_kept(at + 15 * kPage, 5, "beside what remap_file_pages has mapped");
  });
}

sigjmp_buf after_fault;

void on_fault(int) {
  siglongjmp(after_fault, 1);
}

bool is_guarded(volatile char* page) {
  if (sigsetjmp(after_fault, 1) == 0) {
    static_cast<void>(*page);
    return false;
  }
  return true;
}

/// A guard stays although pages arrive, and what was at it is gone. One that goes at once may leave
/// what was there.
void guards() {
  Owed owed;
  CHECK(::signal(SIGSEGV, on_fault) != SIG_ERR);
  when_told(owed, [](Owed& memory) {
    char* at = memory.take(400);
    if (::madvise(at + 100 * kPage, 200 * kPage, kGuardInstall) != 0) {
      CHECK_EQUAL(errno, EINVAL);  // Linux 6.13
      return;
    }
    // The pages around it, and by push all others, come now.
    expect_kept(at, 100, "before guards");
    expect_kept(at + 300 * kPage, 100, "after guards");
    check::sleep_ns(200 * check::kMillisecond);
    for (int page = 100; page < 300; ++page) {
      CHECK(is_guarded(at + page * kPage));
    }
    in_child([&] { CHECK(is_guarded(at + 150 * kPage)); });
    called(::madvise(at + 100 * kPage, 100 * kPage, kGuardRemove), "GUARD_REMOVE");
    for (int page = 100; page < 200; ++page) {
      if (Owed::word(at + page * kPage) != 0) {
        expect_kept(at + page * kPage, 1, "GUARD_REMOVE");
      }
    }
    CHECK(is_guarded(at + 200 * kPage));
  });
}

/// The pager's registration is there already; the program may register other memory.
void own_userfaultfd() {
  Owed owed;
  when_told(owed, [](Owed& memory) {
    const int fd = static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | 1));
    uffdio_api api{};
    api.api = UFFD_API;
    if (fd < 0 || ::ioctl(fd, UFFDIO_API, &api) != 0) {
      return;  // not allowed here
    }
    char* at = memory.take(20);
    uffdio_register range{};
    range.range = {reinterpret_cast<std::uint64_t>(at), 20 * kPage};
    range.mode = UFFDIO_REGISTER_MODE_MISSING;
    CHECK(::ioctl(fd, UFFDIO_REGISTER, &range) == 0 || errno == EBUSY);
    ::close(fd);
    expect_kept(at, 20, "userfaultfd");
  });
}

constexpr check::Property kProperties[] = {
    {"advices", advices},
    {"process_advices", process_advices},
    {"forks", forks},
    {"protections", protections},
    {"mappings", mappings},
    {"partly_moved", partly_moved},
    {"guards", guards},
    {"shared", shared},
    {"shared_remapped", shared_remapped},
    {"own_userfaultfd", own_userfaultfd},
};

}  // namespace

int main(int argc, char** argv) {
  return check::main(argc, argv, kProperties);
}
