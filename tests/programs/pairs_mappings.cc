// Mappings of each kind, with what madvise(2), mlock(2) and mprotect(2) make of them, and memory
// files.
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#include <array>

#include "tests/programs/pairs.h"

namespace pairs {
namespace {

constexpr std::size_t kPage = 4096;

struct Memory {
  char* start;
  std::size_t length;
  char* at(std::size_t page) const { return start + page * kPage; }
  std::size_t pages() const { return length / kPage; }
};

std::size_t some_bytes(Random& random) {
  return (1 + random.below(chance(random, 10) ? 2000 : 40)) * kPage;
}

void fill(const Memory& memory, Random& random) {
  for (std::size_t page = 0; page < memory.pages(); ++page) {
    if (chance(random, 60)) {
      std::memset(memory.at(page), static_cast<int>(random.below(256)), 1 + random.below(kPage));
    }
  }
}

/// `valid` false: nothing is shown of its content, which may be lost at any moment.
bool note(const Memory& memory, bool valid = true) {
  if (memory.start == MAP_FAILED) {
    return false;
  }
  if (valid) {
    show_memory(memory.start, memory.length);
  }
  return true;
}

Memory map(std::size_t length, int flags, int fd = -1, int protection = PROT_READ | PROT_WRITE) {
  return {static_cast<char*>(::mmap(nullptr, length, protection, flags, fd, 0)), length};
}

// A part of the memory, of at least one page.
Memory part_of(const Memory& memory, Random& random) {
  const std::size_t first = random.below(memory.pages());
  return {memory.at(first), (1 + random.below(memory.pages() - first)) * kPage};
}

void advise(const Memory& memory, Random& random) {
  constexpr int kAdvice[] = {MADV_SEQUENTIAL, MADV_RANDOM,       MADV_DONTFORK, MADV_WIPEONFORK,
                             MADV_DONTDUMP,   MADV_MERGEABLE,    MADV_HUGEPAGE, MADV_NOHUGEPAGE,
                             MADV_WILLNEED,   MADV_DONTNEED,     MADV_COLD,     MADV_PAGEOUT,
                             MADV_REMOVE,     MADV_POPULATE_READ};
  for (std::uint64_t count = random.below(4); count > 0; --count) {
    const Memory part = part_of(memory, random);
    ::madvise(part.start, part.length, one_of(random, kAdvice));
  }
  if (chance(random, 25)) {
    const Memory part = part_of(memory, random);
    constexpr int kProtections[] = {PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE | PROT_EXEC,
                                    PROT_READ | PROT_EXEC};
    ::mprotect(part.start, part.length, one_of(random, kProtections));
  }
  if (chance(random, 15)) {
    const Memory part = part_of(memory, random);
    static_cast<void>(chance(random, 50) ? ::mlock(part.start, part.length)
                                         : ::mlock2(part.start, part.length, MLOCK_ONFAULT));
  }
  if (chance(random, 10)) {
    const Memory part = part_of(memory, random);
    ::munmap(part.start, part.length);
  }
}

bool map_private(Random& random) {
  const Memory memory = map(some_bytes(random), MAP_PRIVATE | MAP_ANONYMOUS);
  if (memory.start == MAP_FAILED) {
    return false;
  }
  fill(memory, random);
  advise(memory, random);
  return note(memory);
}

bool map_reservation(Random& random) {
  const std::size_t length = std::size_t{1} << (30U + random.below(12));
  const Memory memory = map(length, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
                            chance(random, 50) ? PROT_NONE : PROT_READ | PROT_WRITE);
  return note(memory, false);
}

bool map_stack(Random& random) {
  const Memory memory = map(some_bytes(random), MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN);
  if (memory.start == MAP_FAILED) {
    return false;
  }
  fill(memory, random);
  return note(memory);
}

bool map_named(Random& random) {
  const Memory memory =
      map(some_bytes(random), MAP_ANONYMOUS | (chance(random, 70) ? MAP_PRIVATE : MAP_SHARED));
  return memory.start != MAP_FAILED &&
         ::prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, memory.start, memory.length, "a name") == 0;
}

bool map_shared(Random& random) {
  const bool zero = chance(random, 20);
  const int fd = zero ? ::open("/dev/zero", O_RDWR | O_CLOEXEC) : -1;
  const Memory memory = map(some_bytes(random), MAP_SHARED | (zero ? 0 : MAP_ANONYMOUS), fd);
  if (memory.start == MAP_FAILED) {
    return false;
  }
  ::close(fd);
  fill(memory, random);
  advise(memory, random);
  return note(memory);
}

bool map_twice(Random& random) {
  const Memory memory = map(some_bytes(random), MAP_SHARED | MAP_ANONYMOUS);
  if (memory.start == MAP_FAILED) {
    return false;
  }
  fill(memory, random);
  void* const again = ::mremap(memory.start, 0, memory.length, MREMAP_MAYMOVE);
  return note(memory) && note({static_cast<char*>(again), memory.length});
}

bool map_removed_advice(Random& random) {
  const Memory memory = map(some_bytes(random), MAP_PRIVATE | MAP_ANONYMOUS);
  if (memory.start == MAP_FAILED) {
    return false;
  }
  fill(memory, random);
  ::madvise(memory.start, memory.length, MADV_FREE);
  return note(memory, false);
}

bool map_guarded(Random& random) {
  constexpr int kGuardInstall = 102;
  const Memory memory =
      map(some_bytes(random), MAP_ANONYMOUS | (chance(random, 75) ? MAP_PRIVATE : MAP_SHARED));
  if (memory.start == MAP_FAILED) {
    return false;
  }
  fill(memory, random);
  for (std::uint64_t count = 1 + random.below(4); count > 0; --count) {
    const Memory part = part_of(memory, random);
    ::madvise(part.start, part.length, kGuardInstall);
  }
  return note(memory);
}

bool map_droppable(Random& random) {
  constexpr int kDroppable = 8;
  const Memory memory = map(some_bytes(random), kDroppable | MAP_ANONYMOUS);
  return note(memory, false);
}

bool map_huge(Random& random) {
  const Memory memory =
      map(std::size_t{2} << 20U, MAP_ANONYMOUS | MAP_HUGETLB | MAP_NORESERVE |
                                     (chance(random, 50) ? MAP_PRIVATE : MAP_SHARED));
  return note(memory, false);
}

bool map_aligned_huge(Random& random) {
  constexpr std::size_t kHuge = std::size_t{2} << 20U;
  const Memory memory = map(3 * kHuge, MAP_PRIVATE | MAP_ANONYMOUS);
  if (memory.start == MAP_FAILED) {
    return false;
  }
  ::madvise(memory.start, memory.length, MADV_HUGEPAGE);
  fill(memory, random);
  advise(memory, random);
  return note(memory);
}

bool map_file(Random& random) {
  const std::string path = new_path("mapped");
  const std::size_t length = some_bytes(random);
  check::write_text(path, std::string(length - random.below(kPage), 'm'));
  const bool writable = chance(random, 60);
  const int fd = ::open(path.c_str(), (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC);
  const bool shared = chance(random, 50);
  constexpr int kProtections[] = {PROT_READ, PROT_READ | PROT_EXEC, PROT_NONE};
  const bool write = chance(random, 60) && (writable || !shared);
  const Memory memory = map(length, shared ? MAP_SHARED : MAP_PRIVATE, fd,
                            write ? PROT_READ | PROT_WRITE : one_of(random, kProtections));
  ::close(fd);
  if (memory.start == MAP_FAILED) {
    return false;
  }
  if (write) {
    fill(memory, random);
  }
  advise(memory, random);
  if (chance(random, 20)) {
    ::unlink(path.c_str());
  }
  return note(memory);
}

/// More than the file has.
bool map_beyond(Random& random) {
  const std::string path = new_path("short");
  check::write_text(path, std::string(100, 's'));
  const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  const Memory memory = map(4 * kPage, chance(random, 50) ? MAP_SHARED : MAP_PRIVATE, fd,
                            chance(random, 50) ? PROT_READ : PROT_READ | PROT_WRITE);
  ::close(fd);
  return note(memory);
}

int make_memory(std::size_t length, Random& random) {
  constexpr unsigned kFlags[] = {0, MFD_ALLOW_SEALING, MFD_CLOEXEC, 8, 16};  // NOEXEC_SEAL, EXEC
  constexpr const char* kNames[] = {"", "memory", "a (deleted)", "two\nlines"};
  const int fd = ::memfd_create(one_of(random, kNames), one_of(random, kFlags));
  if (fd >= 0) {
    static_cast<void>(::ftruncate(fd, static_cast<off_t>(length)));
    for (std::size_t page = 0; page < length / kPage; ++page) {
      if (chance(random, 50)) {
        static_cast<void>(::pwrite(fd, "memory", 6, static_cast<off_t>(page * kPage)));
      }
    }
    if (chance(random, 20)) {
      ::fchmod(fd, static_cast<mode_t>(random.below(01000)));
    }
  }
  return fd;
}

/// Memory files that are open, sealed, mapped, or two of these.
bool make_memory_file(Random& random) {
  const std::size_t length = some_bytes(random);
  const int fd = make_memory(length, random);
  if (fd < 0) {
    return false;
  }
  const bool mapped = chance(random, 60);
  if (mapped) {
    const bool shared = chance(random, 85);
    const Memory memory = map(length, shared ? MAP_SHARED : MAP_PRIVATE, fd,
                              chance(random, 60) ? PROT_READ | PROT_WRITE : PROT_READ);
    if (!note(memory)) {
      return false;
    }
    advise(memory, random);
  }
  constexpr int kSeals[] = {F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_WRITE, F_SEAL_SEAL, 0x10, 0x20};
  if (chance(random, 40)) {
    ::fcntl(fd, F_ADD_SEALS, some_of(random, kSeals));
  }
  if (chance(random, 30)) {
    ::open(("/proc/self/fd/" + std::to_string(fd)).c_str(), O_RDONLY);
  }
  ::lseek(fd, static_cast<off_t>(random.below(length)), SEEK_SET);
  if (mapped && chance(random, 40)) {
    ::close(fd);
  }
  return true;
}

bool make_large_memory_file(Random& random) {
  const std::size_t length = (std::size_t{40} + random.below(60)) << 20U;
  const int fd = ::memfd_create("large", 0);
  static const std::array<char, 1 << 20> bytes{1};
  for (std::size_t at = 0; at < length; at += bytes.size()) {
    static_cast<void>(::write(fd, bytes.data(), bytes.size()));
  }
  if (chance(random, 50)) {
    map(length, MAP_SHARED, fd);
  }
  return fd >= 0;
}

bool make_secret(Random& /*random*/) {
  const int fd = static_cast<int>(::syscall(SYS_memfd_secret, 0));
  return fd >= 0 && ::ftruncate(fd, kPage) == 0 && map(kPage, MAP_SHARED, fd).start != MAP_FAILED;
}

bool make_huge_memory_file(Random& /*random*/) {
  return ::memfd_create("huge", MFD_HUGETLB) >= 0;
}

bool seal_memory(Random& random) {
  constexpr int kSeal = 462;  // mseal(2)
  const Memory memory = map(some_bytes(random), MAP_PRIVATE | MAP_ANONYMOUS);
  return note(memory) && ::syscall(kSeal, memory.start, memory.length, 0) == 0;
}

bool protect_by_key(Random& random) {
  const int key = ::pkey_alloc(0, 0);
  const Memory memory = map(some_bytes(random), MAP_PRIVATE | MAP_ANONYMOUS);
  return key >= 0 && ::pkey_mprotect(memory.start, memory.length, PROT_READ, key) == 0;
}

bool bind_memory(Random& random) {
  const Memory memory = map(some_bytes(random), MAP_PRIVATE | MAP_ANONYMOUS);
  const unsigned long node = 1;
  return note(memory) && ::syscall(SYS_mbind, memory.start, memory.length, 2, &node, 8, 0) == 0;
}

bool grow_heap(Random& random) {
  auto* const start = static_cast<char*>(::sbrk(static_cast<std::intptr_t>(some_bytes(random))));
  if (start == reinterpret_cast<char*>(-1)) {
    return false;
  }
  *start = 'h';
  return true;
}

bool unmap_kernels_pages(Random& /*random*/) {
  const std::string maps = check::read_text("/proc/self/maps");
  const std::size_t at = maps.find("[vvar]");
  const std::size_t line = maps.rfind('\n', at) + 1;
  const auto start = std::strtoull(maps.c_str() + line, nullptr, 16);
  return at != std::string::npos && ::munmap(reinterpret_cast<void*>(start), kPage) == 0;
}

constexpr Step kMappingsSteps[] = {
    {"private", false, map_private},
    {"reservation", false, map_reservation},
    {"grows_down", false, map_stack},
    {"named", false, map_named},
    {"shared", false, map_shared},
    {"mapped_twice", false, map_twice},
    {"freed", false, map_removed_advice},
    {"guarded", false, map_guarded},
    {"droppable", false, map_droppable},
    {"huge", true, map_huge},
    {"transparent_huge", false, map_aligned_huge},
    {"mapped_file", false, map_file},
    {"beyond_end", false, map_beyond},
    {"memory_file", false, make_memory_file},
    {"large_memory_file", true, make_large_memory_file},
    {"secret", true, make_secret},
    {"huge_memory_file", true, make_huge_memory_file},
    {"sealed", true, seal_memory},
    {"protection_key", true, protect_by_key},
    {"bound", true, bind_memory},
    {"heap", false, grow_heap},
    {"no_kernel_pages", true, unmap_kernels_pages},
};

}  // namespace

std::span<const Step> mapping_steps() {
  return kMappingsSteps;
}

}  // namespace pairs
