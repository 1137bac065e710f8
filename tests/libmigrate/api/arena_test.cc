// Arenas: what is allocated in them, and what they say of it.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <libmigrate/migrate.hpp>
#include <map>
#include <memory_resource>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "libmigrate/api/free_ranges.h"

namespace {

using migrate::client::FreeRanges;

constexpr std::size_t kPage = 4096;

TEST(FreeRanges, NothingOverlapsAndAllComesBack) {
  constexpr std::size_t kBytes = 1U << 20U;
  FreeRanges ranges(kBytes);
  std::mt19937 random(7);
  std::map<std::size_t, std::size_t> taken;
  for (int i = 0; i < 5000; ++i) {
    if (taken.empty() || random() % 3 != 0) {
      const std::size_t bytes = 1 + random() % 5000;
      const std::size_t alignment = std::size_t{1} << (random() % 10);
      if (const auto start = ranges.take(bytes, alignment)) {
        EXPECT_EQ(*start % alignment, 0U);
        EXPECT_LE(*start + bytes, kBytes);
        const auto next = taken.lower_bound(*start);
        EXPECT_TRUE(next == taken.end() || next->first >= *start + bytes);
        EXPECT_TRUE(next == taken.begin() ||
                    std::prev(next)->first + std::prev(next)->second <= *start);
        taken.emplace(*start, bytes);
      }
    } else {
      const auto each =
          std::next(taken.begin(), static_cast<std::ptrdiff_t>(random() % taken.size()));
      EXPECT_TRUE(ranges.give(each->first));
      taken.erase(each);
    }
  }
  for (const auto& [start, bytes] : taken) {
    EXPECT_TRUE(ranges.give(start));
  }
  EXPECT_EQ(ranges.take(kBytes, 1), 0U);
}

TEST(FreeRanges, WhatWasNotTakenIsNotGiven) {
  FreeRanges ranges(100);
  EXPECT_FALSE(ranges.give(0));
  EXPECT_EQ(ranges.take(60, 1), 0U);
  EXPECT_FALSE(ranges.give(1));
  EXPECT_FALSE(ranges.take(41, 1));
  EXPECT_TRUE(ranges.give(0));
  EXPECT_FALSE(ranges.give(0));
}

TEST(Arena, GivesAlignedMemoryAndTakesItBack) {
  migrate_arena* arena = nullptr;
  ASSERT_EQ(migrate_arena_create("a", 100'000, &arena), MIGRATE_DONE);
  EXPECT_EQ(migrate_arena_bytes(arena), 25 * kPage);
  auto* const first = static_cast<char*>(migrate_arena_allocate(arena, 1000, 0));
  ASSERT_NE(first, nullptr);
  auto* const second = static_cast<char*>(migrate_arena_allocate(arena, 1, 4096));
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(second) % 4096, 0U);
  std::memset(first, 1, 1000);
  EXPECT_EQ(migrate_arena_allocate(arena, 100'000, 0), nullptr);
  EXPECT_NE(std::string(migrate_last_error()).find("no room"), std::string::npos);
  EXPECT_EQ(migrate_arena_allocate(arena, 1, 3), nullptr);
  EXPECT_EQ(migrate_arena_free(arena, first + 1), MIGRATE_USAGE);
  EXPECT_EQ(migrate_arena_free(arena, &arena), MIGRATE_USAGE);
  EXPECT_EQ(migrate_arena_free(arena, first), MIGRATE_DONE);
  EXPECT_EQ(migrate_arena_free(arena, first), MIGRATE_USAGE);
  EXPECT_EQ(migrate_arena_free(arena, second), MIGRATE_DONE);
  EXPECT_EQ(migrate_arena_allocate(arena, 25 * kPage, 0), migrate_arena_address(arena));
  migrate_arena_destroy(arena);
}

TEST(Arena, ItsNameIsItsOwn) {
  migrate_arena* arena = nullptr;
  ASSERT_EQ(migrate_arena_create("mine", 1, &arena), MIGRATE_DONE);
  migrate_arena* other = nullptr;
  EXPECT_EQ(migrate_arena_create("mine", 1, &other), MIGRATE_USAGE);
  EXPECT_EQ(other, nullptr);
  EXPECT_EQ(migrate_arena_create("", 1, &other), MIGRATE_USAGE);
  EXPECT_EQ(migrate_arena_create("empty", 0, &other), MIGRATE_USAGE);
  EXPECT_EQ(migrate_arena_create("large", SIZE_MAX, &other), MIGRATE_USAGE);
  migrate_arena_destroy(arena);
  ASSERT_EQ(migrate_arena_create("mine", 1, &arena), MIGRATE_DONE);
  migrate_arena_destroy(arena);
  migrate_arena_destroy(nullptr);
}

bool is_used(void* page) {
  unsigned char state = 0;
  return mincore(page, kPage, &state) == 0 && (state & 1U) != 0;
}

TEST(Arena, LargeFreeMemoryIsUsedNoMore) {
  migrate::arena arena("given back", 1U << 20U);
  auto* const large = static_cast<char*>(arena.allocate(256 * 1024, kPage));
  auto* const small = static_cast<char*>(arena.allocate(kPage, kPage));
  std::memset(large, 1, 256 * 1024);
  std::memset(small, 1, kPage);
  arena.deallocate(large, 256 * 1024, kPage);
  EXPECT_FALSE(is_used(large));
  EXPECT_TRUE(is_used(small));
  EXPECT_EQ(*small, 1);
}

TEST(Arena, ContainersAllocateInIt) {
  migrate::arena arena("containers", 4U << 20U);
  {
    std::pmr::unsynchronized_pool_resource pool(&arena);
    std::pmr::map<int, std::pmr::string> map(&pool);
    for (int i = 0; i < 1000; ++i) {
      map.emplace(i, std::string(100, 'x'));
    }
    const auto* const start = static_cast<const char*>(arena.address());
    const auto* const text = map.at(500).data();
    EXPECT_TRUE(text >= start && text < start + arena.size());
  }
  std::pmr::vector<char> all(&arena);
  EXPECT_THROW(all.resize(8U << 20U), std::bad_alloc);
  all.resize(4U << 20U);  // Nothing is left of the others.
}

TEST(Arena, ThreadsAllocateWhileOthersFork) {
  migrate::arena arena("threads", 1U << 20U);
  std::atomic<bool> stop = false;
  std::vector<std::thread> threads;
  for (int i = 0; i < 2; ++i) {
    threads.emplace_back([&] {
      while (!stop) {
        arena.deallocate(arena.allocate(100), 100);
      }
    });
  }
  for (int i = 0; i < 50; ++i) {
    const pid_t child = fork();
    if (child == 0) {
      arena.deallocate(arena.allocate(200), 200);
      _exit(0);
    }
    int status = -1;
    waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
  }
  stop = true;
  for (std::thread& each : threads) {
    each.join();
  }
  EXPECT_EQ(arena.allocate(1U << 20U), arena.address());
}

}  // namespace
