#include "pager/page_ledger.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <map>
#include <random>

#include "pager/page_map.h"

namespace migrate {
namespace {

constexpr std::uint64_t at(std::uint64_t page) {
  return 0x10000000 + page * kPageBytes;
}

PagerRegion region(std::uint64_t first, std::uint64_t count) {
  PagerRegion made;
  made.destination = {at(first), count};
  made.source_address = at(first);
  return made;
}

Result<PageMap> taken_over(const PageMap& map) {
  return PageMap::from_ledger(MIGRATE_TRY(PageLedger::open(UniqueFd(::dup(map.ledger()->fd())))));
}

TEST(PageLedger, KeepsEveryStateButRequests) {
  PageMap map;
  ASSERT_TRUE(map.add(region(0, 3000)));
  ASSERT_TRUE(map.add(region(5000, 10)));
  map.set_state({at(7), 1}, PageState::kPresent);  // Before the ledger begins.
  ASSERT_TRUE(map.keep_ledger());
  std::mt19937 random(7);  // NOLINT(cert-msc51-cpp): the same each time
  for (int i = 0; i < 2000; ++i) {
    const std::uint64_t first = random() % 3000;
    const std::uint64_t count = 1 + random() % std::min<std::uint64_t>(3000 - first, 1300);
    map.set_state({at(first), count}, static_cast<PageState>(random() % kPageStateCount));
    if (i % 200 != 0) {
      continue;
    }
    const auto other = taken_over(map);
    ASSERT_TRUE(other);
    for (std::uint64_t page = 0; page < 3000; ++page) {
      const PageState wanted = map.state(at(page));
      ASSERT_EQ(other->state(at(page)),
                wanted == PageState::kRequested ? PageState::kUnknown : wanted)
          << page;
    }
    ASSERT_EQ(other->state(at(5003)), PageState::kUnknown);
  }
}

TEST(PageLedger, KeepsRegionsAsSaved) {
  PageMap map;
  ASSERT_TRUE(map.add(region(0, 100)));
  ASSERT_TRUE(map.keep_ledger());
  map.remap({at(10), 5}, at(1000));
  map.remove({at(20), 2});
  map.unmap({at(30), 1});
  ASSERT_TRUE(map.ledger()->save({map.regions(), {{at(10), 5}}, {}}));
  const auto other = taken_over(map);
  ASSERT_TRUE(other);
  EXPECT_EQ(other->regions(), map.regions());
  EXPECT_EQ(other->state(at(20)), PageState::kPresent);
  EXPECT_EQ(other->find(at(1002))->source_address, at(12));
  EXPECT_FALSE(other->find(at(30)));
  EXPECT_EQ(other->owed_pages(), map.owed_pages());
  EXPECT_EQ(other->ledger()->regions()->expected.size(), 1U);
}

TEST(PageLedger, HugeReservationsCostNothing) {
  PageMap map;
  ASSERT_TRUE(map.add(region(0, std::uint64_t{1} << 28U)));  // 1 TiB
  ASSERT_TRUE(map.keep_ledger());
  map.set_state({at(0), std::uint64_t{1} << 28U}, PageState::kZero);
  map.set_state({at(12345678), 3}, PageState::kPresent);
  const auto other = taken_over(map);
  ASSERT_TRUE(other);
  EXPECT_EQ(other->count(PageState::kZero), (std::uint64_t{1} << 28U) - 3);
}

}  // namespace
}  // namespace migrate
