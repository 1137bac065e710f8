#include "pager/page_map.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

namespace migrate {
namespace {

constexpr std::uint64_t kBase = 0x10000000;

PagerRegion region(std::uint64_t destination_page, std::uint64_t source_page,
                   std::uint64_t page_count, RegionKind kind = RegionKind::kAnonymous) {
  PagerRegion result;
  result.destination = {kBase + destination_page * kPageBytes, page_count};
  result.source_address = kBase + source_page * kPageBytes;
  result.kind = kind;
  return result;
}

TEST(PageRange, KnowsItsBounds) {
  EXPECT_TRUE((PageRange{kBase, 3}).valid());
  EXPECT_FALSE((PageRange{kBase + 1, 3}).valid());
  EXPECT_FALSE((PageRange{kBase, ~std::uint64_t{0}}).valid());
  EXPECT_FALSE((PageRange{kAddressLimit, 0}).valid());
  EXPECT_TRUE(PageRange::between(kBase, kBase - kPageBytes).empty());
  EXPECT_TRUE((PageRange{kBase, 1}).intersect({kBase + kPageBytes, 5}).empty());
}

TEST(StateTable, CountsHugeRangesCheaply) {
  StateTable table;
  const std::uint64_t pages = std::uint64_t{4} << 28U;  // 4 TiB
  table.set(5, pages, PageState::kUnknown);
  EXPECT_EQ(table.count(PageState::kUnknown), pages);
  table.set(1000, 1, PageState::kPresent);
  EXPECT_EQ(table.count(PageState::kUnknown), pages - 1);
  EXPECT_EQ(table.run_at(5, pages).page_count, 995U);
  EXPECT_EQ(table.run_at(1001, pages).page_count, pages + 5 - 1001);
  const StateTable copy = table.clone();
  table.set(5, pages, PageState::kZero);
  EXPECT_EQ(table.count(PageState::kUnknown), 0U);
  EXPECT_EQ(copy.count(PageState::kUnknown), pages - 1);
  EXPECT_EQ(copy.get(1000), PageState::kPresent);
}

TEST(PageMap, RefusesOverlapAndNonsense) {
  PageMap map;
  ASSERT_TRUE(map.add(region(0, 100, 10)));
  EXPECT_FALSE(map.add(region(9, 200, 5)));   // destination overlaps
  EXPECT_FALSE(map.add(region(20, 109, 5)));  // source overlaps
  EXPECT_FALSE(map.add(region(20, 300, 0)));
  PagerRegion wild = region(20, 300, 1);
  wild.source_address = ~std::uint64_t{0} - kPageBytes + 1;
  EXPECT_FALSE(map.add(wild));
  EXPECT_TRUE(map.add(region(10, 110, 5)));
  EXPECT_EQ(map.owed_pages(), 15U);
}

TEST(PageMap, FindsWhatBelongsWhere) {
  PageMap map;
  ASSERT_TRUE(map.add(region(0, 100, 10)));
  const auto part = map.find(kBase + 4 * kPageBytes + 17);
  ASSERT_TRUE(part);
  EXPECT_EQ(part->source_address, kBase + 104 * kPageBytes);
  EXPECT_EQ(part->destination, (PageRange{kBase + 4 * kPageBytes, 6}));
  EXPECT_FALSE(map.find(kBase - 1));
  EXPECT_FALSE(map.find(kBase + 10 * kPageBytes));
  const auto first = map.first_at_source({kBase + 98 * kPageBytes, 5});
  ASSERT_TRUE(first);
  EXPECT_EQ(first->destination, (PageRange{kBase, 3}));
  EXPECT_FALSE(map.first_at_source({kBase + 110 * kPageBytes, 5}));
}

TEST(PageMap, NeverOwesWhatWasGivenBack) {
  PageMap map;
  ASSERT_TRUE(map.add(region(0, 100, 10)));
  ASSERT_TRUE(map.add(region(20, 200, 10, RegionKind::kSharedMemory)));
  ASSERT_TRUE(map.add(region(40, 300, 10, RegionKind::kFileCopy)));
  EXPECT_FALSE(map.remove({kBase + 2 * kPageBytes, 3}));
  EXPECT_EQ(map.state(kBase + 102 * kPageBytes), PageState::kPresent);
  EXPECT_EQ(map.owed_pages(), 27U);
  EXPECT_FALSE(map.remove({kBase + 20 * kPageBytes, 10}));
  EXPECT_EQ(map.owed_pages(), 27U);  // shared memory keeps its content
  EXPECT_TRUE(map.remove({kBase + 40 * kPageBytes, 1}));
  EXPECT_EQ(map.state(kBase + 300 * kPageBytes), PageState::kLocalFile);
  EXPECT_EQ(map.owed_pages(), 26U);
  EXPECT_EQ(map.unfinished_pages(), 27U);
}

TEST(PageMap, WipesForAChildWhatIsToBeWiped) {
  PageMap map;
  PagerRegion wiped = region(0, 100, 10);
  wiped.withheld_from_child = true;
  ASSERT_TRUE(map.add(wiped));
  ASSERT_TRUE(map.add(region(10, 110, 5)));
  const PageMap child = map.clone_for_fork();
  EXPECT_EQ(map.owed_pages(), 15U);
  EXPECT_EQ(child.owed_pages(), 5U);
  EXPECT_FALSE(child.find(kBase));
}

TEST(PageMap, WithholdsFromAChildWhatWasSaidLast) {
  PageMap map;
  ASSERT_TRUE(map.add(region(0, 100, 10)));
  ASSERT_TRUE(map.add(region(10, 110, 5)));
  const std::vector<PageRange> ranges = {{kBase + 4 * kPageBytes, 2}, {kBase + 8 * kPageBytes, 4}};
  EXPECT_TRUE(map.withhold_from_child(ranges));
  EXPECT_FALSE(map.withhold_from_child(ranges));
  EXPECT_EQ(map.owed_pages(), 15U);
  PageMap child = map.clone_for_fork();
  EXPECT_EQ(child.owed_pages(), 9U);
  EXPECT_TRUE(map.withhold_from_child({}));
  child = map.clone_for_fork();
  EXPECT_EQ(child.owed_pages(), 15U);
}

/// The same with one entry for each page.
struct Model {
  struct Page {
    std::uint64_t source;
    RegionKind kind;
    PageState state;
  };
  std::map<std::uint64_t, Page> pages;  // by destination page

  void unmap(std::uint64_t first, std::uint64_t count) {
    pages.erase(pages.lower_bound(first), pages.lower_bound(first + count));
  }
  void remap(std::uint64_t from, std::uint64_t to, std::uint64_t count) {
    std::map<std::uint64_t, Page> moved;
    for (std::uint64_t i = 0; i < count; ++i) {
      if (const auto found = pages.find(from + i); found != pages.end()) {
        moved[to + i] = found->second;
        pages.erase(found);
      }
    }
    unmap(to, count);
    pages.merge(moved);
  }
};

void expect_equal(const PageMap& map, const Model& model, std::uint64_t page_limit) {
  std::uint64_t unfinished = 0;
  for (std::uint64_t page = 0; page < page_limit; ++page) {
    const auto part = map.find(kBase + page * kPageBytes);
    const auto found = model.pages.find(page);
    ASSERT_EQ(part.has_value(), found != model.pages.end()) << page;
    if (!part) {
      continue;
    }
    ASSERT_EQ(part->source_address, kBase + found->second.source * kPageBytes) << page;
    ASSERT_EQ(map.state(part->source_address), found->second.state) << page;
    const auto back = map.first_at_source({part->source_address, 1});
    ASSERT_TRUE(back);
    ASSERT_EQ(back->destination.start, kBase + page * kPageBytes);
    unfinished += found->second.state == PageState::kUnknown ||
                  found->second.state == PageState::kRequested ||
                  found->second.state == PageState::kLocalFile;
  }
  ASSERT_EQ(map.unfinished_pages(), unfinished);
}

TEST(PageMap, EqualsANaiveModel) {
  constexpr std::uint64_t kLimit = 3000;
  for (unsigned seed = 1; seed <= 20; ++seed) {
    std::mt19937 random(seed);
    const auto below = [&](std::uint64_t limit) { return random() % limit; };
    PageMap map;
    Model model;
    std::uint64_t at = 0;
    for (int i = 0; i < 6; ++i) {
      const std::uint64_t count = 1 + below(400);
      const auto kind = static_cast<RegionKind>(below(3));
      const std::uint64_t source = 5000 + at * 2;
      ASSERT_TRUE(map.add(region(at, source, count, kind)));
      for (std::uint64_t page = 0; page < count; ++page) {
        model.pages[at + page] = {source + page, kind, PageState::kUnknown};
      }
      at += count + below(50);
    }
    for (int step = 0; step < 150; ++step) {
      const std::uint64_t first = below(kLimit - 300);
      const std::uint64_t count = 1 + below(below(10) == 0 ? 300 : 20);
      const PageRange range{kBase + first * kPageBytes, count};
      switch (below(5)) {
        case 0:
          map.unmap(range);
          model.unmap(first, count);
          break;
        case 1:
          map.remove(range);
          for (std::uint64_t i = 0; i < count; ++i) {
            if (const auto found = model.pages.find(first + i); found != model.pages.end()) {
              Model::Page& page = found->second;
              page.state = page.kind == RegionKind::kAnonymous  ? PageState::kPresent
                           : page.kind == RegionKind::kFileCopy ? PageState::kLocalFile
                                                                : page.state;
            }
          }
          break;
        case 2: {
          const std::uint64_t to = below(kLimit - 300);
          if (to + count <= first || first + count <= to) {
            map.remap(range, kBase + to * kPageBytes);
            model.remap(first, to, count);
          }
          break;
        }
        case 3: {
          PageMap clone = map.clone_for_fork();
          map = std::move(clone);
          break;
        }
        default: {
          const auto state = static_cast<PageState>(below(kPageStateCount));
          for (const PagerRegion& part : map.at_destination(range)) {
            map.set_state({part.source_address, part.destination.page_count}, state);
          }
          for (std::uint64_t i = 0; i < count; ++i) {
            if (const auto found = model.pages.find(first + i); found != model.pages.end()) {
              found->second.state = state;
            }
          }
        }
      }
      if (step % 10 == 9) {
        ASSERT_NO_FATAL_FAILURE(expect_equal(map, model, kLimit)) << "seed " << seed;
      }
    }
  }
}

}  // namespace
}  // namespace migrate
