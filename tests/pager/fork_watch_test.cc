// What a forked child gets is decided by the advice at the moment of the fork.

#include "pager/internal/fork_watch.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <functional>
#include <thread>
#include <vector>

#include "tests/pager/moved_memory.h"

namespace migrate::test {
namespace {

constexpr std::uint64_t kMemoryPages = 2000;

void advise(const MovedMemory& memory, std::uint64_t first, std::uint64_t count, int advice) {
  expect(::madvise(memory.page(first), count * kPageBytes, advice) == 0, "madvise");
}

void in_child(const std::function<void()>& check, const std::function<void()>& meanwhile) {
  const pid_t child = ::fork();
  if (child == 0) {
    check();
    ::_exit(0);
  }
  meanwhile();
  int status = -1;
  expect(::waitpid(child, &status, 0) == child && status == 0, "the forked child succeeds");
}

/// Changes its mind before and after each fork; both ways can be told by any one page.
void wipe_and_keep(const MovedMemory& memory, int times) {
  for (int i = 0; i < times; ++i) {
    const std::uint64_t first = static_cast<std::uint64_t>(i) * 40;
    advise(memory, first, 20, MADV_WIPEONFORK);
    in_child(
        [&] {
          expect_zero(memory.page(first), 20);
          expect_filled(memory.page(first + 20), 20);
        },
        [&] {
          advise(memory, first, 20, MADV_KEEPONFORK);
          advise(memory, first + 20, 20, MADV_WIPEONFORK);
        });
    in_child([&] { expect_filled(memory.page(first), 20); },
             [&] { advise(memory, first, 40, MADV_KEEPONFORK); });
    in_child([&] { expect_filled(memory.page(first), 40); }, [] {});
  }
}

class ForkWatchModes : public testing::TestWithParam<Mode> {
 protected:
  static void run(const std::function<void(const MovedMemory&)>& job) {
    MovedMemory memory(kMemoryPages);
    memory.start_source([&] { fill(memory.base(), kMemoryPages); });
    memory.start_destination([&] {
      job(memory);
      expect_filled(memory.base(), kMemoryPages);
    });
    memory.connect(GetParam());
    memory.release();
    memory.expect_job_succeeds();
    memory.expect_done();
  }
};

INSTANTIATE_TEST_SUITE_P(Modes, ForkWatchModes, testing::Values(Mode::kLazy, Mode::kDemand),
                         [](const auto& mode) { return mode_name(mode.param); });

TEST_P(ForkWatchModes, ChildrenGetWhatTheAdviceOfTheForkSays) {
  run([](const MovedMemory& memory) { wipe_and_keep(memory, 20); });
}

TEST_P(ForkWatchModes, SoDoChildrenOfChildren) {
  run([](const MovedMemory& memory) {
    in_child([&] { wipe_and_keep(memory, 10); }, [&] { wipe_and_keep(memory, 10); });
    in_child([&] { in_child([&] { wipe_and_keep(memory, 5); }, [] {}); }, [] {});
  });
}

TEST_P(ForkWatchModes, OrphansToo) {
  run([](const MovedMemory& memory) {
    // Orphans of a cell go to its init.
    expect(::prctl(PR_SET_CHILD_SUBREAPER, 1) == 0, "prctl");
    std::array<int, 2> ends{};
    expect(::pipe(ends.data()) == 0, "pipe");
    in_child(
        [&] {
          if (::fork() == 0) {
            ::usleep(50000);
            wipe_and_keep(memory, 5);
            expect(::write(ends[1], "x", 1) == 1, "write");
            ::_exit(0);
          }
        },
        [] {});
    char byte = 0;
    ::close(ends[1]);
    expect(::read(ends[0], &byte, 1) == 1, "the orphan succeeds");
  });
}

TEST_P(ForkWatchModes, ForksOfSeveralThreads) {
  run([](const MovedMemory& memory) {
    std::vector<std::thread> threads;
    for (std::uint64_t number = 0; number < 4; ++number) {
      threads.emplace_back([&memory, number] {
        for (std::uint64_t i = 0; i < 10; ++i) {
          const std::uint64_t first = number * 500 + i * 40;
          advise(memory, first, 20, MADV_WIPEONFORK);
          in_child(
              [&] {
                expect_zero(memory.page(first), 20);
                expect_filled(memory.page(first + 20), 20);
              },
              [&] { advise(memory, first, 20, MADV_KEEPONFORK); });
        }
      });
    }
    for (std::thread& thread : threads) {
      thread.join();
    }
  });
}

/// The child may map something there, or move memory there.
TEST_P(ForkWatchModes, WhatIsNotForkedIsFreeForTheChild) {
  run([](const MovedMemory& memory) {
    advise(memory, 100, 100, MADV_DONTFORK);
    in_child(
        [&] {
          expect(::mremap(memory.page(500), 50 * kPageBytes, 50 * kPageBytes,
                          MREMAP_MAYMOVE | MREMAP_FIXED, memory.page(100)) == memory.page(100),
                 "mremap");
          expect_filled(memory.page(100), 50, 0, memory.page(500));
          expect(::mmap(memory.page(150), 50 * kPageBytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == memory.page(150),
                 "mmap");
          expect_zero(memory.page(150), 50);
        },
        [&] { advise(memory, 100, 100, MADV_DOFORK); });
    in_child([&] { expect_filled(memory.base(), kMemoryPages); }, [] {});
  });
}

TEST(ForkWatch, ANewPagerFindsTheProcessesAgain) {
  MovedMemory memory(kMemoryPages);
  memory.start_source([&] { fill(memory.base(), kMemoryPages); });
  memory.start_destination([&] {
    in_child(
        [&] {
          ::usleep(200000);
          wipe_and_keep(memory, 5);
        },
        [&] { ::usleep(100000); });
    wipe_and_keep(memory, 10);
  });
  memory.connect(Mode::kDemand);
  memory.release();
  ::usleep(50000);
  memory.replace_pager();
  memory.expect_job_succeeds();
}

TEST(ForkWatch, FindsNothingWithoutAProcess) {
  EXPECT_EQ(ForkWatch().look(PageMap()), nullptr);
  EXPECT_EQ(ForkWatch(::getpid(), 0).look(PageMap()), nullptr);
}

}  // namespace
}  // namespace migrate::test
