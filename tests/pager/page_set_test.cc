#include "pager/page_set.h"

#include <gtest/gtest.h>

#include <random>
#include <set>

namespace migrate {
namespace {

std::set<std::uint64_t> pages_of(const PageSet& set) {
  std::set<std::uint64_t> pages;
  for (const PageRange& range : set) {
    for (std::uint64_t page = 0; page < range.page_count; ++page) {
      pages.insert(range.start / kPageBytes + page);
    }
  }
  return pages;
}

PageSet set_of(const std::set<std::uint64_t>& pages) {
  std::vector<PageRange> ranges;
  for (const std::uint64_t page : pages) {
    ranges.push_back({page * kPageBytes, 1});
  }
  return page_set(std::move(ranges));
}

bool is_normal(const PageSet& set) {
  for (std::size_t i = 0; i < set.size(); ++i) {
    if (set[i].empty() || (i > 0 && set[i].start <= set[i - 1].end())) {
      return false;
    }
  }
  return true;
}

TEST(PageSets, DoWhatSetsOfSinglePagesDo) {
  std::mt19937 random(17);  // NOLINT(cert-msc32-c,cert-msc51-cpp): the same every time
  for (int run = 0; run < 500; ++run) {
    std::set<std::uint64_t> a;
    std::set<std::uint64_t> b;
    for (int i = 0; i < 30; ++i) {
      a.insert(random() % 64);
      b.insert(random() % 64);
    }
    std::set<std::uint64_t> both = a;
    both.insert(b.begin(), b.end());
    std::set<std::uint64_t> shared;
    std::set<std::uint64_t> left;
    for (const std::uint64_t page : a) {
      (b.contains(page) ? shared : left).insert(page);
    }
    const PageSet first = set_of(a);
    const PageSet second = set_of(b);
    for (const auto& [result, expected] :
         {std::pair(join(first, second), both), std::pair(common(first, second), shared),
          std::pair(without(first, second), left)}) {
      EXPECT_EQ(pages_of(result), expected);
      EXPECT_TRUE(is_normal(result));
      EXPECT_EQ(page_total(result), expected.size());
    }
    const std::uint64_t count = random() % 40;
    const PageSet lowest = first_pages(first, count);
    EXPECT_EQ(page_total(lowest), std::min<std::uint64_t>(count, a.size()));
    EXPECT_EQ(common(lowest, first), lowest);
    EXPECT_TRUE(page_total(lowest) == 0 || without(first, lowest).empty() ||
                without(first, lowest).front().start >= lowest.back().end());
  }
}

TEST(PageSets, TakeRangesInAnyOrder) {
  const PageSet set = page_set({{8 * kPageBytes, 4}, {0, 2}, {2 * kPageBytes, 1}, {}, {0, 1}});
  EXPECT_EQ(set, (PageSet{{0, 3}, {8 * kPageBytes, 4}}));
}

}  // namespace
}  // namespace migrate
