// Mappings: what each allows and forbids, grows to, and was advised.
#include <setjmp.h>
#include <signal.h>
#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <thread>
#include <vector>

#include "tests/programs/check.h"

namespace {

using check::called;
using check::stopping;

constexpr std::size_t kPage = 4096;

sigjmp_buf after_fault;
std::atomic<std::uintptr_t> fault_address{0};
std::atomic<int> fault_code{0};

void on_fault(int, siginfo_t* info, void*) {
  fault_address = reinterpret_cast<std::uintptr_t>(info->si_addr);
  fault_code = info->si_code;
  siglongjmp(after_fault, 1);
}

void handle_faults() {
  struct sigaction action {};
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO;
  called(::sigaction(SIGSEGV, &action, nullptr), "sigaction");
}

/// Reads or writes at `address`; the si_code of the fault, or 0 if it was allowed.
int touch(volatile char* address, bool write) {
  fault_code = 0;
  if (sigsetjmp(after_fault, 1) == 0) {
    if (write) {
      *address = 'w';
    } else {
      static_cast<void>(*address);
    }
    return 0;
  }
  CHECK_EQUAL(fault_address.load(), reinterpret_cast<std::uintptr_t>(address));
  return fault_code;
}

struct Zone {
  int protection;
  int read_code;
  int write_code;
};
constexpr std::array<Zone, 6> kZones = {{
    {PROT_READ | PROT_WRITE, 0, 0},
    {PROT_NONE, SEGV_ACCERR, SEGV_ACCERR},
    {PROT_READ, 0, SEGV_ACCERR},
    {-1, SEGV_MAPERR, SEGV_MAPERR},
    {PROT_READ | PROT_EXEC, 0, SEGV_ACCERR},
    {PROT_READ | PROT_WRITE | PROT_EXEC, 0, 0},
}};
constexpr std::size_t kZoneBytes = 16 * kPage;

/// Zones of each protection side by side, one of them not mapped; filled before it was forbidden.
void protections() {
  handle_faults();
  auto* memory = static_cast<char*>(check::map_memory(kZones.size() * kZoneBytes));
  std::memset(memory, 'p', kZones.size() * kZoneBytes);
  for (std::size_t index = 0; index < kZones.size(); ++index) {
    char* zone = memory + index * kZoneBytes;
    if (kZones[index].protection < 0) {
      called(::munmap(zone, kZoneBytes), "munmap");
    } else {
      called(::mprotect(zone, kZoneBytes, kZones[index].protection), "mprotect");
    }
  }
  check::Random random(1);
  check::ready();
  while (!stopping()) {
    for (std::size_t index = 0; index < kZones.size(); ++index) {
      char* place = memory + index * kZoneBytes + random.below(kZoneBytes);
      CHECK_EQUAL(touch(place, false), kZones[index].read_code);
      CHECK_EQUAL(touch(place, true), kZones[index].write_code);
    }
    check::sleep_ns(check::kMillisecond);
  }
  char* forbidden = memory + kZoneBytes;
  called(::mprotect(forbidden, kZoneBytes, PROT_READ), "mprotect");
  for (std::size_t index = 0; index < kZoneBytes; ++index) {
    CHECK_EQUAL(forbidden[index], 'p');  // What PROT_NONE hid has come along.
  }
}

/// Code that was written at run time.
void code() {
  auto* memory = static_cast<unsigned char*>(check::map_memory(256 * kPage));
  for (std::uint32_t index = 0; index < 256; ++index) {
    unsigned char* function = memory + index * kPage;
    function[0] = 0xB8;  // mov eax, index * 3
    const std::uint32_t value = index * 3;
    std::memcpy(function + 1, &value, sizeof value);
    function[5] = 0xC3;  // ret
  }
  called(::mprotect(memory, 256 * kPage, PROT_READ | PROT_EXEC), "mprotect");
  check::ready();
  while (!stopping()) {
    for (std::uint32_t index = 0; index < 256; ++index) {
      std::uint32_t (*function)() = nullptr;
      unsigned char* address = memory + index * kPage;
      std::memcpy(&function, &address, sizeof function);
      CHECK_EQUAL(function(), index * 3);
    }
    check::sleep_ns(check::kMillisecond);
  }
}

__attribute__((noinline)) std::uint64_t recurse(int depth, std::uint64_t seed) {
  volatile std::uint64_t frame[128];
  for (std::uint64_t index = 0; index < 128; ++index) {
    frame[index] = seed + index;
  }
  const std::uint64_t below = depth == 0 ? 0 : recurse(depth - 1, seed + 1);
  for (std::uint64_t index = 0; index < 128; ++index) {
    CHECK_EQUAL(frame[index], seed + index);
  }
  return below + 1;
}

/// The stack grows anew, deeper at each turn, and comes back whole.
void stack_growth() {
  recurse(100, 1);
  check::ready();
  check::Random random(3);
  int deepest = 200;
  while (!stopping()) {
    const int depth = static_cast<int>(random.below(static_cast<std::uint64_t>(deepest)));
    CHECK_EQUAL(recurse(depth, random.next()), static_cast<std::uint64_t>(depth) + 1);
    deepest = std::min(deepest + 20, 5000);  // About 1 KiB a frame.
    check::sleep_ns(check::kMillisecond);
  }
  CHECK_EQUAL(recurse(5000, 5), 5001U);
}

void growsdown() {
  constexpr std::size_t kMostPages = 1500;  // Such a mapping grows as far as RLIMIT_STACK: 8 MiB.
  // Room below first, so that growing does not meet another mapping.
  constexpr std::size_t kRoom = 64U << 20U;
  auto* room = static_cast<char*>(check::map_memory(kRoom, PROT_NONE));
  char* top = room + kRoom;
  called(::munmap(room, kRoom), "munmap");
  void* memory = ::mmap(top - 4 * kPage, 4 * kPage, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED, -1, 0);
  CHECK(memory != MAP_FAILED);
  std::size_t pages = 4;
  const auto value_of = [](std::size_t page) { return static_cast<char>(page * 7 + 1); };
  for (std::size_t page = 1; page <= pages; ++page) {
    top[-static_cast<std::ptrdiff_t>(page * kPage)] = value_of(page);
  }
  check::ready();
  while (!stopping()) {
    if (pages < kMostPages) {
      ++pages;
      top[-static_cast<std::ptrdiff_t>(pages * kPage)] = value_of(pages);
    }
    for (std::size_t page = 1; page <= pages; ++page) {
      CHECK_EQUAL(top[-static_cast<std::ptrdiff_t>(page * kPage)], value_of(page));
    }
    check::sleep_ns(5 * check::kMillisecond);
  }
}

/// The flags of smaps that a program can set, of the mapping that begins at `address`.
std::string flags_at(const void* address) {
  std::ostringstream prefix;
  prefix << std::hex << reinterpret_cast<std::uintptr_t>(address) << "-";
  std::istringstream lines(check::read_text("/proc/self/smaps"));
  std::string line;
  bool inside = false;
  while (std::getline(lines, line)) {
    if (line.find('-') != std::string::npos && line.find("-") < 17 && line.find(':') > 17) {
      inside = line.starts_with(prefix.str());
    }
    if (inside && line.starts_with("VmFlags:")) {
      std::istringstream words(line.substr(8));
      std::string word;
      std::string result;
      while (words >> word) {
        if (std::string(" rd wr ex gd lo hg nh dc wf dd mg sr rr nr ").find(" " + word + " ") !=
            std::string::npos) {
          result += word + " ";
        }
      }
      return result;
    }
  }
  return "no mapping begins at " + prefix.str();
}

void advice() {
  constexpr std::size_t kBytes = 4U << 20U;
  std::vector<char*> places;
  for (const int what : {MADV_HUGEPAGE, MADV_NOHUGEPAGE, MADV_DONTFORK, MADV_WIPEONFORK,
                         MADV_DONTDUMP, MADV_MERGEABLE, MADV_SEQUENTIAL, MADV_RANDOM, -1}) {
    auto* memory = static_cast<char*>(check::map_memory(
        kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE));
    std::memset(memory, 'a', kBytes);
    // Not every kernel has each of them; what was set counts. PROT_NONE between keeps them apart.
    static_cast<void>(what < 0 ? ::mlock(memory, kBytes / 2) : ::madvise(memory, kBytes / 2, what));
    called(::mprotect(memory + kBytes - kPage, kPage, PROT_NONE), "mprotect");
    places.push_back(memory);
  }
  std::vector<std::string> expected;
  for (char* place : places) {
    expected.push_back(flags_at(place));
  }
  check::ready();
  do {
    check::sleep_ns(400 * check::kMillisecond);
    for (std::size_t index = 0; index < places.size(); ++index) {
      CHECK_EQUAL(flags_at(places[index]), expected[index]);
      CHECK_EQUAL(places[index][kBytes / 2], 'a');
    }
  } while (!stopping());
}

/// What is mapped from now on is there at once, and stays.
void locked_future() {
  constexpr std::size_t kBytes = 16 * kPage;
  called(::mlockall(MCL_FUTURE), "mlockall");
  check::ready();
  int absent = 0;
  while (!stopping()) {
    void* const memory =
        check::map_memory(kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
    std::array<unsigned char, 16> present{};
    called(::mincore(memory, kBytes, present.data()), "mincore");
    const bool all = std::all_of(present.begin(), present.end(),
                                 [](unsigned char page) { return (page & 1U) != 0; });
    // Once may be a move between the two calls: what was there then is still to come.
    absent = all ? 0 : absent + 1;
    CHECK_EQUAL(absent < 3, true);
    called(::munmap(memory, kBytes), "munmap");
    check::sleep_ns(2 * check::kMillisecond);
  }
}

/// The program break, up and down, with what lies below it.
void program_break() {
  char* const begin = static_cast<char*>(::sbrk(0));
  std::size_t size = 0;
  check::Random random(9);
  check::ready();
  while (!stopping()) {
    CHECK_EQUAL(::sbrk(0), begin + size);
    const std::size_t next = random.below(2000) * kPage + random.below(100);
    called(::brk(begin + next), "brk");
    for (std::size_t page = std::max<std::size_t>(1, (size + kPage - 1) / kPage);
         page * kPage < next; ++page) {
      CHECK_EQUAL(begin[page * kPage], '\0');  // New pages are empty.
      begin[page * kPage] = static_cast<char>(page);
    }
    size = next;
    for (std::size_t page = 1; page * kPage < size; ++page) {
      if (begin[page * kPage] != static_cast<char>(page)) {
        check::fail("page %zu of the heap is %d", page, begin[page * kPage]);
      }
    }
    check::sleep_ns(2 * check::kMillisecond);
  }
}

/// Memory that was asked for piece by piece, and is more in all than the machine has.
void reservations() {
  const auto machine = static_cast<std::size_t>(::sysconf(_SC_PHYS_PAGES)) * kPage;
  const std::size_t piece = machine / 4 / kPage * kPage;
  constexpr std::size_t kPieces = 12;
  auto* base = static_cast<char*>(
      check::map_memory(kPieces * piece, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE));
  for (std::size_t i = 0; i < kPieces; ++i) {
    CHECK(::mmap(base + i * piece, piece, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == base + i * piece);
    base[i * piece] = static_cast<char>(i + 1);
  }
  check::ready();
  while (!stopping()) {
    for (std::size_t i = 0; i < kPieces; ++i) {
      CHECK_EQUAL(base[i * piece], static_cast<char>(i + 1));
      CHECK_EQUAL(base[(i + 1) * piece - 1], '\0');
    }
    check::sleep_ns(check::kMillisecond);
  }
}

/// Whether the kernel lets this process write there: it would be sent SIGSEGV otherwise.
bool can_write(const char* at) {
  std::array<int, 2> ends{};
  called(::pipe(ends.data()), "pipe");
  CHECK_EQUAL(::write(ends[1], "g", 1), 1);
  const bool can = ::read(ends[0], const_cast<char*>(at), 1) == 1;  // EFAULT otherwise
  called(::close(ends[0]), "close");
  called(::close(ends[1]), "close");
  return can;
}

/// Guard regions within a mapping, as glibc 2.42 makes them below each thread's stack.
void guards() {
  constexpr int kInstall = 102;  // MADV_GUARD_INSTALL, Linux 6.13
  constexpr int kRemove = 103;
  constexpr std::size_t kPages = 64;
  auto* memory = static_cast<char*>(check::map_memory(kPages * kPage));
  for (std::size_t page = 0; page < kPages; ++page) {
    memory[page * kPage] = static_cast<char>(page);
  }
  if (::madvise(memory + 4 * kPage, kPage, kInstall) != 0) {
    CHECK_EQUAL(errno, EINVAL);
    check::ready();
    while (!stopping()) {
      check::sleep_ns(check::kMillisecond);
    }
    return;
  }
  called(::madvise(memory + 20 * kPage, 10 * kPage, kInstall), "MADV_GUARD_INSTALL");
  check::ready();
  do {
    for (const std::size_t page : {4U, 20U, 25U, 29U}) {
      CHECK(!can_write(memory + page * kPage));
    }
    for (const std::size_t page : {3U, 5U, 19U, 30U, 63U}) {
      CHECK_EQUAL(memory[page * kPage], static_cast<char>(page));
    }
    check::sleep_ns(check::kMillisecond);
  } while (!stopping());
  called(::madvise(memory + 4 * kPage, 20 * kPage, kRemove), "MADV_GUARD_REMOVE");
  CHECK_EQUAL(memory[4 * kPage], 0);
  CHECK_EQUAL(memory[23 * kPage], 0);
  CHECK_EQUAL(memory[10 * kPage], 10);
  CHECK(!can_write(memory + 25 * kPage));
}

/// Memory whose content the kernel may drop, as glibc 2.41 has it for getrandom(3): it stays
/// mapped, and what was dropped is zero.
void droppable() {
  constexpr int kDroppable = 8;  // MAP_DROPPABLE, Linux 6.11
  constexpr std::size_t kBytes = 65536;
  auto* memory = static_cast<char*>(
      ::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, kDroppable | MAP_ANONYMOUS, -1, 0));
  const bool has = memory != MAP_FAILED;
  check::ready();
  do {
    for (std::size_t at = 0; has && at < kBytes; at += 4096) {
      CHECK(memory[at] == 0 || memory[at] == 'd');
      memory[at] = 'd';
    }
    check::sleep_ns(check::kMillisecond);
  } while (!stopping());
  if (has) {
    CHECK(check::read_text("/proc/self/smaps").find(" dp") != std::string::npos);
  }
}

constexpr check::Property kProperties[] = {
    {"protections", protections},
    {"code", code},
    {"stack_growth", stack_growth},
    {"growsdown", growsdown},
    {"advice", advice},
    {"program_break", program_break},
    {"locked_future", locked_future},
    {"reservations", reservations},
    {"guards", guards},
    {"droppable", droppable},
};

}  // namespace

int main(int argc, char** argv) {
  return check::main(argc, argv, kProperties);
}
