// What a process may do to its address space while pages are owed, and what may happen to the
// pager.

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <random>
#include <thread>

#include "tests/pager/moved_memory.h"

namespace migrate::test {
namespace {

class TwoProcessEvents : public testing::TestWithParam<Mode> {};

INSTANTIATE_TEST_SUITE_P(Modes, TwoProcessEvents,
                         testing::Values(Mode::kLazy, Mode::kDemand, Mode::kEager),
                         [](const auto& mode) { return mode_name(mode.param); });

void wait_for_child(pid_t child) {
  int status = -1;
  expect(::waitpid(child, &status, 0) == child, "waitpid");
  expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the forked child succeeds");
}

TEST_P(TwoProcessEvents, GivenBackMemoryStaysZero) {
  constexpr std::uint64_t kPages = 3000;
  MovedMemory memory(kPages);
  memory.start_source([&] { fill(memory.base(), kPages); });
  memory.start_destination([&] {
    expect_filled(memory.page(10), 20);
    expect(::madvise(memory.page(0), 1000 * kPageBytes, MADV_DONTNEED) == 0, "madvise");
    expect_zero(memory.page(5), 100);
    fill(memory.page(5), 100, 77);
    ::usleep(50000);
    expect_filled(memory.page(5), 100, 77);
    expect_zero(memory.page(105), 895);
    expect_filled(memory.page(1000), 2000);
  });
  memory.connect(GetParam());
  memory.release();
  memory.expect_job_succeeds();
  memory.expect_done();
}

TEST_P(TwoProcessEvents, UnmappedMemoryMayBeMappedAgain) {
  constexpr std::uint64_t kPages = 3000;
  MovedMemory memory(kPages);
  memory.start_source([&] { fill(memory.base(), kPages); });
  memory.start_destination([&] {
    expect(::munmap(memory.page(500), 500 * kPageBytes) == 0, "munmap");
    expect(::mmap(memory.page(400), 300 * kPageBytes, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED,
           "mmap over it");
    expect_zero(memory.page(400), 300);
    expect_filled(memory.page(0), 400);
    expect_filled(memory.page(1000), 2000);
    expect_zero(memory.page(400), 300);
  });
  memory.connect(GetParam());
  memory.release();
  memory.expect_job_succeeds();
  memory.expect_done();
}

TEST_P(TwoProcessEvents, MemoryMayMoveAndGrow) {
  constexpr std::uint64_t kPages = 4000;
  MovedMemory memory(kPages);
  memory.add_region(RegionKind::kAnonymous, 0, 1000);
  memory.add_region(RegionKind::kAnonymous, 2000, 1000);
  memory.start_source([&] {
    fill(memory.page(0), 1000);
    fill(memory.page(2000), 1000);
  });
  memory.start_destination([&] {
    // Away from the middle of a region, then back elsewhere, growing.
    void* const moved =
        ::mremap(memory.page(2200), 300 * kPageBytes, 600 * kPageBytes, MREMAP_MAYMOVE);
    expect(moved != MAP_FAILED, "mremap");
    auto* const bytes = static_cast<std::byte*>(moved);
    expect_filled(bytes, 300, 0, memory.page(2200));
    expect_zero(bytes + 300 * kPageBytes, 300);
    // Onto another region.
    expect(::mremap(memory.page(2600), 200 * kPageBytes, 200 * kPageBytes,
                    MREMAP_MAYMOVE | MREMAP_FIXED, memory.page(100)) == memory.page(100),
           "mremap onto a region");
    expect_filled(memory.page(100), 200, 0, memory.page(2600));
    expect_filled(memory.page(0), 100);
    expect_filled(memory.page(300), 700);
    expect_filled(memory.page(2000), 200);
    expect_filled(memory.page(2500), 100);
    expect_filled(memory.page(2800), 200);
  });
  memory.connect(GetParam());
  memory.release();
  memory.expect_job_succeeds();
  memory.expect_done();
}

TEST_P(TwoProcessEvents, ForkedChildrenAreWholeToo) {
  constexpr std::uint64_t kPages = 3000;
  MovedMemory memory(kPages);
  memory.start_source([&] { fill(memory.base(), kPages); });
  memory.start_destination([&] {
    expect_filled(memory.page(7), 30);
    const pid_t child = ::fork();
    if (child == 0) {
      const pid_t grandchild = ::fork();
      if (grandchild == 0) {
        expect_filled(memory.page(0), kPages);
        ::_exit(0);
      }
      expect(::madvise(memory.page(1000), 100 * kPageBytes, MADV_DONTNEED) == 0, "madvise");
      expect_zero(memory.page(1000), 100);
      expect_filled(memory.page(0), 1000);
      expect_filled(memory.page(1100), kPages - 1100);
      wait_for_child(grandchild);
      ::_exit(0);
    }
    fill(memory.page(100), 10, 5);
    expect_filled(memory.page(100), 10, 5);
    expect_filled(memory.page(1000), kPages - 1000);
    wait_for_child(child);
    expect_filled(memory.page(100), 10, 5);
  });
  memory.connect(GetParam());
  memory.release();
  memory.expect_job_succeeds();
  memory.expect_done();
}

TEST_P(TwoProcessEvents, ManyForksWithThreads) {
  constexpr std::uint64_t kPages = 2000;
  MovedMemory memory(kPages);
  memory.start_source([&] { fill(memory.base(), kPages); });
  memory.start_destination([&] {
    std::thread toucher([&] {
      for (std::uint64_t i = 0; i < kPages; ++i) {
        expect_filled(memory.page(i * 997 % kPages), 1);
      }
    });
    for (int i = 0; i < 20; ++i) {
      const pid_t child = ::fork();
      if (child == 0) {
        const auto start = static_cast<std::uint64_t>(i) * 90;
        expect_filled(memory.page(start), 100);
        ::_exit(0);
      }
      wait_for_child(child);
    }
    toucher.join();
  });
  memory.connect(GetParam());
  memory.release();
  memory.expect_job_succeeds();
  memory.expect_done();
}

TEST_P(TwoProcessEvents, ThreadsChangeTheAddressSpaceAtRandom) {
  constexpr std::uint64_t kPages = 4000;
  constexpr std::uint64_t kBlock = 50;
  MovedMemory memory(kPages);
  memory.start_source([&] { fill(memory.base(), kPages); });
  memory.start_destination([&] {
    // Each thread owns every fourth block and moves, gives back and touches its blocks.
    std::vector<std::thread> threads;
    for (unsigned id = 0; id < 4; ++id) {
      threads.emplace_back([&memory, id] {
        std::mt19937 random(id);
        for (std::uint64_t block = id; block < kPages / kBlock; block += 4) {
          std::byte* const original = memory.page(block * kBlock);
          std::byte* at = original;
          for (int step = 0; step < 3; ++step) {
            switch (random() % 3) {
              case 0: {
                void* const moved = ::mmap(nullptr, kBlock * kPageBytes, PROT_NONE,
                                           MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
                expect(moved != MAP_FAILED, "mmap");
                expect(::mremap(at, kBlock * kPageBytes, kBlock * kPageBytes,
                                MREMAP_MAYMOVE | MREMAP_FIXED, moved) == moved,
                       "mremap");
                at = static_cast<std::byte*>(moved);
                break;
              }
              case 1:
                expect_filled(at + 10 * kPageBytes, 5, 0, original + 10 * kPageBytes);
                break;
              default:
                expect(::madvise(at + 20 * kPageBytes, 10 * kPageBytes, MADV_DONTNEED) == 0,
                       "madvise");
                expect_zero(at + 20 * kPageBytes, 10);
                fill(original == at ? original + 20 * kPageBytes : at + 20 * kPageBytes, 1, 3);
                expect(::madvise(at + 20 * kPageBytes, kPageBytes, MADV_DONTNEED) == 0,
                       "madvise again");
                expect_zero(at + 20 * kPageBytes, 1);
            }
          }
          expect_filled(at, 20, 0, original);
          expect_filled(at + 30 * kPageBytes, 20, 0, original + 30 * kPageBytes);
        }
      });
    }
    for (std::thread& thread : threads) {
      thread.join();
    }
  });
  memory.connect(GetParam());
  memory.release();
  memory.expect_job_succeeds();
  memory.expect_done();
}

TEST_P(TwoProcessEvents, AnotherProgramMayBeExecuted) {
  constexpr std::uint64_t kPages = 2000;
  MovedMemory memory(kPages);
  memory.start_source([&] { fill(memory.base(), kPages); });
  memory.start_destination([&] {
    expect_filled(memory.page(3), 5);
    ::execl("/bin/true", "true", static_cast<char*>(nullptr));
    expect(false, "exec");
  });
  memory.connect(GetParam());
  memory.release();
  memory.expect_job_succeeds();
  memory.expect_done();
}

TEST_P(TwoProcessEvents, ABrokenLinkIsResumed) {
  constexpr std::uint64_t kPages = 3000;
  MovedMemory memory(kPages);
  memory.start_source([&] { fill(memory.base(), kPages); });
  memory.start_destination([&] {
    for (std::uint64_t i = 0; i < kPages; ++i) {
      expect_filled(memory.page(i * 997 % kPages), 1);
    }
  });
  memory.connect(GetParam());
  memory.release();
  for (int i = 0; i < 3 && !memory.pager().done(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(3));
    memory.break_links();
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    memory.reconnect();
  }
  memory.expect_job_succeeds();
  memory.expect_done();
}

TEST(Pager, FaultsWaitWhileTheLinkIsBroken) {
  constexpr std::uint64_t kPages = 100;
  MovedMemory memory(kPages);
  memory.start_source([&] { fill(memory.base(), kPages); });
  memory.start_destination([&] { expect_filled(memory.base(), kPages); });
  memory.connect(Mode::kDemand);
  memory.break_links();
  memory.release();
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  EXPECT_EQ(::waitpid(memory.destination_pid(), nullptr, WNOHANG), 0) << "it must wait";
  EXPECT_GE(memory.links_lost(), 1);
  EXPECT_GT(memory.pager().owed_pages(), 0U);
  memory.reconnect();
  memory.expect_job_succeeds();
  memory.expect_done();
}

TEST(Pager, PushingMayBeginLater) {
  constexpr std::uint64_t kPages = 2000;
  MovedMemory memory(kPages);
  memory.start_source([&] { fill(memory.base(), kPages); });
  memory.start_destination([&] { expect_filled(memory.base(), kPages); });
  memory.connect(Mode::kDemand);
  std::this_thread::sleep_for(std::chrono::milliseconds(30));
  EXPECT_EQ(memory.pager().owed_pages(), kPages);
  memory.server().start_push();
  EXPECT_TRUE(memory.pager().wait_all_present(30000));
  EXPECT_EQ(memory.pager().statistics().push_pages, kPages);
  memory.release();
  memory.expect_job_succeeds();
  memory.expect_done();
}

}  // namespace
}  // namespace migrate::test
