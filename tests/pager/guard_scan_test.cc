// Guards stay although pages arrive, and what was at them is gone.

#include "pager/internal/guard_scan.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstring>

#include "tests/pager/moved_memory.h"

namespace migrate::test {
namespace {

constexpr int kGuardInstall = 102;  // Linux 6.13
constexpr int kGuardRemove = 103;

/// False where the kernel has no guards, or (before 6.15) does not show them.
bool kernel_shows_guards() {
  void* const page = ::mmap(nullptr, kPageBytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  const bool there = ::madvise(page, kPageBytes, kGuardInstall) == 0;
  const PageRange range{reinterpret_cast<std::uint64_t>(page), 1};
  const bool seen = there && GuardScan().first_in(range, ::getpid()) == range;
  ::munmap(page, kPageBytes);
  return seen;
}

bool is_guarded(const std::byte* page) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::signal(SIGSEGV, SIG_DFL);  // A sanitizer would report it, and exit.
    static_cast<void>(*static_cast<const volatile std::byte*>(page));
    ::_exit(0);
  }
  int status = 0;
  expect(::waitpid(child, &status, 0) == child, "waitpid");
  return WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV;
}

void guard(const MovedMemory& memory, std::uint64_t first, std::uint64_t count, int advice) {
  expect(::madvise(memory.page(first), count * kPageBytes, advice) == 0, "madvise");
}

void expect_guarded(const MovedMemory& memory, std::uint64_t first, std::uint64_t count) {
  for (std::uint64_t page = first; page < first + count; page += 10) {
    expect(is_guarded(memory.page(page)), "a page is guarded still");
  }
}

/// The guards of the process, or of a child of it, are there when all is pushed.
void guard_and_push(bool in_child) {
  if (!kernel_shows_guards()) {
    GTEST_SKIP() << "this kernel has no PAGE_IS_GUARD (Linux 6.15)";
  }
  constexpr std::uint64_t kTotal = 2000;
  std::array<int, 2> guarded{};
  std::array<int, 2> pushed{};
  ASSERT_EQ(::pipe(guarded.data()), 0);
  ASSERT_EQ(::pipe(pushed.data()), 0);
  MovedMemory memory(kTotal);
  memory.start_source([&] { fill(memory.base(), kTotal); });
  memory.start_destination([&] {
    const auto job = [&] {
      guard(memory, 500, 300, kGuardInstall);
      char byte = 'x';
      expect(::write(guarded[1], &byte, 1) == 1 && ::read(pushed[0], &byte, 1) == 1, "wait");
      expect_guarded(memory, 500, 300);
      guard(memory, 500, 100, kGuardRemove);
      expect_zero(memory.page(500), 100);
      expect_guarded(memory, 600, 200);
      expect_filled(memory.page(0), 500);
      expect_filled(memory.page(800), kTotal - 800);
    };
    if (!in_child) {
      job();
      return;
    }
    const pid_t child = ::fork();
    if (child == 0) {
      job();
      ::_exit(0);
    }
    int status = 0;
    expect(::waitpid(child, &status, 0) == child && status == 0, "the forked child succeeds");
    expect_filled(memory.base(), kTotal);
  });
  memory.connect(Mode::kDemand);
  memory.release();
  char byte = 0;
  ASSERT_EQ(::read(guarded[0], &byte, 1), 1);
  memory.server().start_push();
  EXPECT_TRUE(memory.pager().wait_all_present(30000));
  ASSERT_EQ(::write(pushed[1], &byte, 1), 1);
  memory.expect_job_succeeds();
  memory.expect_done();
}

TEST(GuardScan, GuardsStayWhenPagesArePushed) {
  guard_and_push(false);
}

TEST(GuardScan, GuardsOfChildrenToo) {
  guard_and_push(true);
}

TEST(GuardScan, FindsNothingWithoutAProcess) {
  EXPECT_TRUE(GuardScan().first_in({0x10000, 5}, 0).empty());
}

}  // namespace
}  // namespace migrate::test
