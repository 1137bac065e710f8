// What a program says of its memory, as whoever moves it reads it.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <libmigrate/migrate.hpp>
#include <string>
#include <tuple>
#include <vector>

#include "libmigrate/program/program.h"

namespace {

using migrate::Program;
using migrate::program::Advised;

constexpr std::size_t kPage = 4096;
char* const kBase = reinterpret_cast<char*>(0x100000000);  // NOLINT: an address, never touched

using Said = std::vector<std::tuple<std::size_t, std::size_t, Advised>>;  // first and last page

Said said() {
  Said all;
  for (const migrate::ProgramAdvice& each : Program::open(getpid()).value().advice()) {
    const std::size_t base = each.range.start - reinterpret_cast<std::uint64_t>(kBase);
    if (each.advised != Advised::kArena) {
      all.emplace_back(base / kPage, base / kPage + each.range.page_count - 1, each.advised);
    }
  }
  std::sort(all.begin(), all.end());
  return all;
}

int advise(std::size_t page, std::size_t pages, int advice) {
  return migrate_advise(kBase + page * kPage, pages * kPage, advice);
}

class AdviceTest : public testing::Test {
 protected:
  ~AdviceTest() override { advise(0, 1U << 20U, MIGRATE_ADVICE_NORMAL); }
};

TEST_F(AdviceTest, TheLastWordCounts) {
  EXPECT_EQ(advise(10, 10, MIGRATE_ADVICE_EAGER), MIGRATE_DONE);
  EXPECT_EQ(said(), (Said{{10, 19, Advised::kEager}}));
  EXPECT_EQ(advise(12, 2, MIGRATE_ADVICE_LAZY), MIGRATE_DONE);
  EXPECT_EQ(said(),
            (Said{{10, 11, Advised::kEager}, {12, 13, Advised::kLazy}, {14, 19, Advised::kEager}}));
  EXPECT_EQ(advise(13, 3, MIGRATE_ADVICE_NORMAL), MIGRATE_DONE);
  EXPECT_EQ(said(),
            (Said{{10, 11, Advised::kEager}, {12, 12, Advised::kLazy}, {16, 19, Advised::kEager}}));
}

TEST_F(AdviceTest, AdjoiningRangesAreOne) {
  for (std::size_t page = 0; page < 3000; ++page) {
    ASSERT_EQ(advise(page, 1, MIGRATE_ADVICE_DISCARD), MIGRATE_DONE);
  }
  EXPECT_EQ(said(), (Said{{0, 2999, Advised::kDiscard}}));
}

TEST_F(AdviceTest, PartsOfPages) {
  EXPECT_EQ(migrate_advise(kBase + 100, kPage, MIGRATE_ADVICE_LAZY), MIGRATE_DONE);
  EXPECT_EQ(migrate_advise(kBase + 4 * kPage + 100, 2 * kPage, MIGRATE_ADVICE_DISCARD),
            MIGRATE_DONE);
  EXPECT_EQ(migrate_advise(kBase + 8 * kPage + 100, 10, MIGRATE_ADVICE_DISCARD), MIGRATE_DONE);
  EXPECT_EQ(said(), (Said{{0, 1, Advised::kLazy}, {5, 5, Advised::kDiscard}}));
}

TEST_F(AdviceTest, TheTableHasAnEnd) {
  int status = MIGRATE_DONE;
  std::size_t ranges = 0;
  for (; status == MIGRATE_DONE && ranges < 2000; ++ranges) {
    status = advise(2 * ranges, 1, MIGRATE_ADVICE_EAGER);
  }
  EXPECT_EQ(status, MIGRATE_ERROR);
  EXPECT_EQ(said().size(), ranges - 1);
  EXPECT_GT(ranges, 1000U);
}

TEST_F(AdviceTest, WhatIsWrong) {
  EXPECT_EQ(advise(0, 0, MIGRATE_ADVICE_EAGER), MIGRATE_USAGE);
  EXPECT_EQ(advise(0, 1, MIGRATE_ADVICE_HOT_FIRST + 1), MIGRATE_USAGE);
  EXPECT_EQ(advise(0, 1, -1), MIGRATE_USAGE);
  EXPECT_EQ(migrate_advise(reinterpret_cast<void*>(~0xfffUL), kPage, 1), MIGRATE_USAGE);
  EXPECT_THROW(migrate::advise(nullptr, 0, migrate::advice::lazy), std::runtime_error);
}

TEST_F(AdviceTest, ArenasHaveNames) {
  const auto names = [] {
    std::vector<std::string> all;
    for (const migrate::ProgramAdvice& each : Program::open(getpid()).value().advice()) {
      if (each.advised == Advised::kArena) {
        all.push_back(each.name);
      }
    }
    return all;
  };
  {
    const migrate::arena_name grid("grid 1", kBase, kPage);
    EXPECT_EQ(names(), std::vector<std::string>{"grid 1"});
    EXPECT_EQ(migrate_arena_register("grid 1", kBase, kPage), MIGRATE_USAGE);
    EXPECT_EQ(migrate_arena_register("", kBase, kPage), MIGRATE_USAGE);
    EXPECT_EQ(migrate_arena_register(std::string(44, 'x').c_str(), kBase, kPage), MIGRATE_USAGE);
    EXPECT_EQ(migrate_arena_register("a\nb", kBase, kPage), MIGRATE_USAGE);
  }
  EXPECT_TRUE(names().empty());
  EXPECT_EQ(migrate_arena_unregister("grid 1"), MIGRATE_USAGE);
}

TEST_F(AdviceTest, EachWordIsRead) {
  for (const auto& [advice, word] : {std::pair(MIGRATE_ADVICE_EAGER, Advised::kEager),
                                     std::pair(MIGRATE_ADVICE_LAZY, Advised::kLazy),
                                     std::pair(MIGRATE_ADVICE_DISCARD, Advised::kDiscard),
                                     std::pair(MIGRATE_ADVICE_LOCAL, Advised::kLocal),
                                     std::pair(MIGRATE_ADVICE_SEQUENTIAL, Advised::kSequential),
                                     std::pair(MIGRATE_ADVICE_RANDOM, Advised::kRandom),
                                     std::pair(MIGRATE_ADVICE_HOT_FIRST, Advised::kHotFirst)}) {
    EXPECT_EQ(advise(20, 2, advice), MIGRATE_DONE);
    const auto all = said();
    ASSERT_EQ(all.size(), 1U);
    EXPECT_EQ(std::get<2>(all[0]), word);
  }
}

// Whoever moves it believes nothing that it writes there.
TEST_F(AdviceTest, NonsenseIsLeftOut) {
  advise(0, 1, MIGRATE_ADVICE_EAGER);
  const auto address = Program::open(getpid()).value().read().value().address;
  auto* const block = reinterpret_cast<migrate::program::Block*>(address);
  auto* const table = reinterpret_cast<migrate::program::Advice*>(block->advice.load());
  const migrate::program::Advice kept = table[0];
  for (const auto& [start, end, advised] :
       {std::tuple(kPage, kPage, 1U), std::tuple(kPage + 1, 3 * kPage, 1U),
        std::tuple(kPage, ~std::size_t{0} << 12U, 1U), std::tuple(kPage, 2 * kPage, 9U)}) {
    table[0] = {.start = start, .end = end, .advised = static_cast<Advised>(advised), .name = {}};
    EXPECT_TRUE(said().empty());
  }
  table[0] = kept;
  EXPECT_EQ(said().size(), 1U);
  const std::uint64_t place = block->advice;
  for (const std::uint64_t wrong : {std::uint64_t{1}, place + 1, std::uint64_t{0xffff} << 48U}) {
    block->advice = wrong;
    EXPECT_TRUE(said().empty());
  }
  block->advice = place;
}

}  // namespace
