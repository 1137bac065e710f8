// Memory of one process shown to another: contents under every mode.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <random>
#include <thread>

#include "tests/pager/moved_memory.h"

namespace migrate::test {
namespace {

class TwoProcess : public testing::TestWithParam<Mode> {};

INSTANTIATE_TEST_SUITE_P(Modes, TwoProcess,
                         testing::Values(Mode::kLazy, Mode::kDemand, Mode::kEager),
                         [](const auto& mode) { return mode_name(mode.param); });

TEST_P(TwoProcess, EveryPageArrives) {
  constexpr std::uint64_t kPages = 2000;
  MovedMemory memory(kPages);
  memory.start_source([&] { fill(memory.base(), kPages); });
  memory.start_destination([&] { expect_filled(memory.base(), kPages); });
  memory.connect(GetParam());
  memory.release();
  memory.expect_job_succeeds();
  memory.expect_done();
}

// In modes lazy and demand; where all must be there first, nothing is left for a request.
TEST(TwoProcessWays, ComeOutOfTurn) {
  constexpr std::uint64_t kPages = 4000;
  for (const Mode mode : {Mode::kLazy, Mode::kDemand}) {
    MovedMemory memory(kPages);
    memory.start_source([&] { fill(memory.base(), kPages); });
    memory.start_destination([&] {
      expect_filled(memory.base(), 3000);
      expect_zero(memory.page(3000), 1000);
    });
    memory.set_way(PushWay::kOnRequest, 0, 1000);
    memory.set_way(PushWay::kFirst, 2000, 1000);
    memory.set_way(PushWay::kNever, 3000, 1000);
    memory.connect(mode);
    const std::uint64_t pushed = mode == Mode::kLazy ? 2000 : 1000;
    const auto wait_pushed = [&memory](std::uint64_t count) {
      for (int i = 0; i < 1000 && memory.server().statistics().pushed_pages < count; ++i) {
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
      }
      return memory.server().statistics().pushed_pages;
    };
    EXPECT_EQ(wait_pushed(pushed), pushed);
    EXPECT_EQ(memory.server().statistics().present_pages, 3000U);
    memory.release();
    memory.expect_job_succeeds();
    memory.expect_done();
    EXPECT_EQ(memory.server().statistics().pushed_pages, pushed);
  }
}

TEST(TwoProcessWays, WhatIsHotComesFirstIfAllIsPushed) {
  constexpr std::uint64_t kPages = 4000;
  constexpr std::uint64_t kHotPages = 1000;
  for (const Mode mode : {Mode::kLazy, Mode::kDemand}) {
    MovedMemory memory(kPages);
    memory.start_source([&] { fill(memory.base(), kPages); });
    memory.start_destination([&] { expect_filled(memory.base(), kPages); });
    memory.set_way(PushWay::kHot, 2000, kHotPages);
    PagerOptions options;
    options.trace_runs = 4096;
    memory.connect(mode, options);
    for (int i = 0; mode == Mode::kLazy && i < 1000 && !memory.server().done(); ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    memory.release();
    memory.expect_job_succeeds();
    memory.expect_done();
    EXPECT_EQ(memory.server().statistics().pushed_pages, mode == Mode::kLazy ? kPages : 0);
    const auto hot = PageRange{reinterpret_cast<std::uint64_t>(memory.page(2000)), kHotPages};
    std::uint64_t pushed = 0;
    const ArrivalTrace trace = memory.pager().arrivals();
    for (const PageArrival& one : trace.all()) {
      if (one.way == ArrivalWay::kPush && pushed < kHotPages) {
        // What comes after the last of them may be noted with it, as one run.
        const std::uint64_t first = std::min(one.pages.page_count, kHotPages - pushed);
        EXPECT_EQ(hot.intersect({one.pages.start, first}).page_count, first);
        pushed += first;
      }
    }
  }
}

// The trace has every page once, in the way that counters have it.
TEST_P(TwoProcess, WhenAndHowEachPageCameIsNoted) {
  constexpr std::uint64_t kPages = 3000;
  MovedMemory memory(kPages);
  memory.start_source([&] { fill(memory.base(), 2000); });
  memory.start_destination([&] {
    expect_filled(memory.base(), 2000);
    expect_zero(memory.page(2500), 1);
  });
  PagerOptions options;
  options.trace_runs = 4096;
  memory.connect(GetParam(), options);
  memory.release();
  memory.expect_job_succeeds();
  memory.expect_done();
  std::map<ArrivalWay, std::uint64_t> pages;
  std::int64_t last_us = 0;
  const ArrivalTrace trace = memory.pager().arrivals();
  for (const PageArrival& one : trace.all()) {
    pages[one.way] += one.pages.page_count;
    EXPECT_GE(one.at_us, last_us);
    last_us = one.at_us;
    EXPECT_GE(one.pages.start, reinterpret_cast<std::uint64_t>(memory.base()));
    EXPECT_LE(one.pages.end(), reinterpret_cast<std::uint64_t>(memory.page(kPages)));
  }
  const PagerStatistics counted = memory.pager().statistics();
  EXPECT_EQ(pages[ArrivalWay::kFault], counted.fault_pages);
  EXPECT_EQ(pages[ArrivalWay::kPrefetch], counted.prefetch_pages);
  EXPECT_EQ(pages[ArrivalWay::kPush], counted.push_pages);
  EXPECT_EQ(pages[ArrivalWay::kZero], counted.zero_pages);
  EXPECT_EQ(pages[ArrivalWay::kNever], counted.never_present_pages);
  EXPECT_EQ(pages[ArrivalWay::kFault] + pages[ArrivalWay::kPrefetch] + pages[ArrivalWay::kPush],
            2000U);
  EXPECT_EQ(trace.left_out(), 0U);
}

TEST(TwoProcessWays, AllIsPushedWhenItIsWanted) {
  constexpr std::uint64_t kPages = 3000;
  MovedMemory memory(kPages);
  memory.start_source([&] { fill(memory.base(), kPages); });
  memory.start_destination([&] { expect_filled(memory.base(), kPages); });
  memory.set_way(PushWay::kOnRequest, 500, 1000);
  memory.connect(Mode::kLazy);
  memory.server().start_push();
  memory.expect_done();
  EXPECT_EQ(memory.server().statistics().pushed_pages, kPages);
  memory.release();
  memory.expect_job_succeeds();
}

TEST_P(TwoProcess, SparseMemoryIsZeroWhereItWas) {
  constexpr std::uint64_t kPages = 9000;
  MovedMemory memory(kPages);
  const auto present = [](std::uint64_t page) { return page % 7 == 3 || page / 1000 == 2; };
  memory.start_source([&] {
    for (std::uint64_t page = 0; page < kPages; ++page) {
      if (present(page)) {
        fill(memory.page(page), 1);
      } else if (page % 3 == 0) {
        *memory.page(page) = std::byte{0};  // exists, but is zero
      }
    }
  });
  memory.start_destination([&] {
    for (std::uint64_t i = 0; i < kPages; ++i) {
      const std::uint64_t page = i * 4801 % kPages;
      if (present(page)) {
        expect_filled(memory.page(page), 1);
      } else {
        expect_zero(memory.page(page), 1);
      }
    }
  });
  memory.connect(GetParam());
  memory.release();
  memory.expect_job_succeeds();
  memory.expect_done();
}

TEST_P(TwoProcess, ThreadsTouchAtRandom) {
  constexpr std::uint64_t kPages = 4096;
  MovedMemory memory(kPages);
  memory.start_source([&] { fill(memory.base(), kPages); });
  memory.start_destination([&] {
    std::vector<std::thread> threads;
    for (unsigned id = 0; id < 4; ++id) {
      threads.emplace_back([&memory, id] {
        std::mt19937 random(id);
        for (int i = 0; i < 6000; ++i) {
          const std::uint64_t page = random() % kPages;
          expect_filled(memory.page(page), 1);
          // A word of its own in each page: writes of different threads must not get lost.
          memory.page(page)[1024 + id] = std::byte{1};
          expect(memory.page(page)[1024 + id] == std::byte{1}, "a write is there");
        }
      });
    }
    for (std::thread& thread : threads) {
      thread.join();
    }
    expect_filled(memory.base(), kPages);
  });
  memory.connect(GetParam());
  memory.release();
  memory.expect_job_succeeds();
  memory.expect_done();
}

TEST_P(TwoProcess, NewPagersGoOnWhereOthersEnded) {
  constexpr std::uint64_t kPages = 3000;
  constexpr std::uint64_t kGivenBack = 100;
  MovedMemory memory(kPages);
  memory.start_source([&] { fill(memory.base(), kPages); });
  memory.start_destination([&] {
    expect(::madvise(memory.base(), kGivenBack * kPageBytes, MADV_DONTNEED) == 0, "give back");
    pid_t child = -1;
    for (std::uint64_t i = 0; i < kPages - kGivenBack; ++i) {
      expect_filled(memory.page(kGivenBack + i * 1201 % (kPages - kGivenBack)), 1);
      if (i % 10 == 0) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
      if (i == 1000) {
        child = ::fork();
        if (child == 0) {
          expect_zero(memory.base(), kGivenBack);
          expect_filled(memory.page(kGivenBack), kPages - kGivenBack);
          ::_exit(0);
        }
      }
    }
    expect_zero(memory.base(), kGivenBack);
    int status = -1;
    expect(::waitpid(child, &status, 0) == child && status == 0, "the child is whole");
  });
  memory.connect(GetParam());
  memory.release();
  for (int i = 0; i < 6; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(40));
    memory.replace_pager();
  }
  memory.expect_job_succeeds();
  memory.expect_done();
}

TEST_P(TwoProcess, TheKernelMayTouchMissingPages) {
  constexpr std::uint64_t kPages = 64;
  MovedMemory memory(kPages);
  memory.start_source([&] { fill(memory.base(), kPages); });
  memory.start_destination([&] {
    int ends[2] = {-1, -1};
    expect(::pipe(ends) == 0, "pipe");
    for (std::uint64_t page = 0; page + 1 < kPages; page += 2) {
      expect(::write(ends[1], memory.page(page), kPageBytes) == 4096, "write from missing page");
      expect(::read(ends[0], memory.page(page + 1), kPageBytes / 2) == 2048,
             "read into missing page");
      std::byte rest[kPageBytes / 2];
      expect(::read(ends[0], rest, sizeof(rest)) == 2048, "read the rest");
      std::uint64_t first = 0;
      std::memcpy(&first, memory.page(page + 1), sizeof(first));
      expect(first == word_at(memory.page(page)), "the first half came through the pipe");
      std::uint64_t last = 0;
      std::memcpy(&last, memory.page(page + 1) + 4088, sizeof(last));
      expect(last == word_at(memory.page(page + 1) + 4088), "the second half was moved");
    }
  });
  memory.connect(GetParam());
  memory.release();
  memory.expect_job_succeeds();
}

TEST_P(TwoProcess, SharedMemoryMoves) {
  constexpr std::uint64_t kPages = 2000;
  MovedMemory memory(kPages);
  memory.add_region(RegionKind::kSharedMemory, 0, kPages);
  memory.start_source([&] { fill(memory.page(100), 1000); });
  memory.start_destination([&] {
    expect_zero(memory.base(), 100);
    expect(::madvise(memory.page(300), 100 * kPageBytes, MADV_DONTNEED) == 0, "madvise");
    expect_filled(memory.page(100), 1000);
    expect_zero(memory.page(1100), 900);
  });
  memory.connect(GetParam());
  memory.release();
  memory.expect_job_succeeds();
  memory.expect_done();
}

TEST_P(TwoProcess, UntouchedPagesComeFromTheLocalFile) {
  constexpr std::uint64_t kPages = 300;
  const UniqueFd file(::memfd_create("local", MFD_CLOEXEC));
  MovedMemory memory(kPages + 50);
  ASSERT_EQ(::ftruncate(file.get(), kPages * kPageBytes - 1000), 0);
  void* const content =
      ::mmap(nullptr, kPages * kPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0);
  ASSERT_NE(content, MAP_FAILED);
  fill(content, kPages, 9);
  memory.add_region(RegionKind::kFileCopy, 0, kPages, file.get());
  memory.add_region(RegionKind::kAnonymous, kPages, 50);
  memory.start_source([&] {
    for (std::uint64_t page = 0; page < kPages; page += 3) {
      fill(memory.page(page), 1);
    }
    fill(memory.page(kPages), 50);
  });
  memory.start_destination([&] {
    const std::byte* const original = static_cast<const std::byte*>(content);
    for (std::uint64_t page = 0; page + 1 < kPages; ++page) {
      if (page % 3 == 0) {
        expect_filled(memory.page(page), 1);
      } else {
        expect_filled(memory.page(page), 1, 9, original + page * kPageBytes);
      }
    }
    expect_filled(memory.page(kPages), 50);
  });
  memory.connect(GetParam());
  memory.release();
  memory.expect_job_succeeds();
  memory.expect_done();
  ::munmap(content, kPages * kPageBytes);
}

TEST_P(TwoProcess, MemoryWithoutPermissionsMovesToo) {
  constexpr std::uint64_t kPages = 600;
  MovedMemory memory(kPages);
  memory.start_source([&] {
    fill(memory.base(), kPages);
    ::mprotect(memory.page(200), 200 * kPageBytes, PROT_NONE);
  });
  memory.start_destination([&] {
    expect(::mprotect(memory.page(200), 200 * kPageBytes, PROT_NONE) == 0, "mprotect");
    ::usleep(100000);
    expect(::mprotect(memory.page(200), 200 * kPageBytes, PROT_READ) == 0, "mprotect back");
    expect_filled(memory.base(), kPages);
  });
  memory.connect(GetParam());
  memory.release();
  memory.expect_job_succeeds();
  memory.expect_done();
}

TEST_P(TwoProcess, HugeReservationsCostNothing) {
  constexpr std::uint64_t kPages = (std::uint64_t{256} << 30U) / kPageBytes;
  MovedMemory memory(kPages);
  memory.start_source([&] {
    for (std::uint64_t i = 0; i < 64; ++i) {
      fill(memory.page(i * (kPages / 64)), 2);
    }
  });
  memory.start_destination([&] {
    for (std::uint64_t i = 0; i < 64; ++i) {
      expect_filled(memory.page(i * (kPages / 64)), 2);
      expect_zero(memory.page(i * (kPages / 64) + 2), 3);
    }
  });
  memory.connect(GetParam());
  memory.release();
  memory.expect_job_succeeds();
  memory.expect_done();
}

TEST_P(TwoProcess, APageThatCannotBeReadIsNeverMadeUp) {
  constexpr std::uint64_t kPages = 100;
  MovedMemory memory(kPages);
  memory.start_source([&] {
    fill(memory.base(), kPages);
    ::munmap(memory.page(50), kPageBytes);  // after the image was taken, so to speak
  });
  memory.start_destination([&] {
    expect_filled(memory.base(), 50);
    expect_filled(memory.page(51), 49);
  });
  memory.connect(GetParam());
  memory.release();
  memory.expect_job_succeeds();
}

TEST(PageServer, GivesConfirmedPagesBackAndNeverServesThemAgain) {
  constexpr std::uint64_t kPages = 8192;
  MovedMemory memory(kPages);
  memory.start_source([&] { fill(memory.base(), kPages); });
  memory.start_destination([&] { expect_filled(memory.base(), kPages); });
  memory.connect(Mode::kEager);
  std::uint64_t pages = 0;
  for (const PageRange& range : memory.server().take_confirmed()) {
    pages += range.page_count;
  }
  EXPECT_GE(pages, kPages / 2);
  EXPECT_EQ(memory.server().statistics().present_pages, kPages);
  memory.release();
  memory.expect_job_succeeds();
}

TEST(ProcessPageReader, ScansTheSameWithAndWithoutPagemapScan) {
  // More runs than the kernel gathers at a time, and than one call returns.
  constexpr std::uint64_t kPages = 20000;
  void* const start = ::mmap(nullptr, kPages * kPageBytes, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(start, MAP_FAILED);
  ::madvise(start, kPages * kPageBytes, MADV_NOHUGEPAGE);
  std::uint64_t filled = 0;
  for (std::uint64_t page = 0; page < kPages; page += 1 + page % 5, ++filled) {
    fill(static_cast<std::byte*>(start) + page * kPageBytes, 1);
  }
  const ServedRegion region{{reinterpret_cast<std::uint64_t>(start), kPages}};
  auto reader = ProcessPageReader::create(::getpid());
  ASSERT_TRUE(reader);
  std::vector<PageRange> by_ioctl;
  std::vector<PageRange> by_entries;
  ASSERT_TRUE((*reader)->scan(region, by_ioctl));
  (*reader)->forget_pagemap_scan();
  ASSERT_TRUE((*reader)->scan(region, by_entries));
  EXPECT_EQ(by_ioctl, by_entries);
  std::uint64_t found = 0;
  for (const PageRange& range : by_entries) {
    found += range.page_count;
  }
  EXPECT_EQ(found, filled);
  ::munmap(start, kPages * kPageBytes);
}

}  // namespace
}  // namespace migrate::test
