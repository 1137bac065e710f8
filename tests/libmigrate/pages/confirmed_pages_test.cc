#include "libmigrate/pages/confirmed_pages.h"

#include <gtest/gtest.h>

#include <random>
#include <set>

namespace migrate {
namespace {

PageRange pages(std::uint64_t first, std::uint64_t count) {
  return {first * kPageBytes, count};
}

/// Numbers of pages, as often as they occur.
std::multiset<std::uint64_t> numbers(const std::vector<PageRange>& ranges) {
  std::multiset<std::uint64_t> numbers;
  for (const PageRange& range : ranges) {
    for (std::uint64_t i = 0; i < range.page_count; ++i) {
      numbers.insert(range.start / kPageBytes + i);
    }
  }
  return numbers;
}

using Numbers = std::multiset<std::uint64_t>;

TEST(ConfirmedPages, OneHandoverIsEnoughWhenThereIsOne) {
  ConfirmedPages confirmed(1);
  EXPECT_TRUE(confirmed.take().empty());
  confirmed.note(0, {pages(3, 2), pages(10, 1)});
  EXPECT_EQ(numbers(confirmed.take()), (Numbers{3, 4, 10}));
  EXPECT_TRUE(confirmed.take().empty());
}

TEST(ConfirmedPages, AreNotGivenBackIfWithheld) {
  ConfirmedPages confirmed(1);
  confirmed.withhold({pages(4, 2)});
  confirmed.note(0, {pages(5, 1), pages(3, 2), pages(10, 1)});
  EXPECT_EQ(numbers(confirmed.take()), (Numbers{3, 10}));
}

TEST(ConfirmedPages, WaitForTheLastOfSeveral) {
  ConfirmedPages confirmed(3);
  confirmed.note(0, {pages(1, 4)});
  confirmed.note(2, {pages(1, 4)});
  EXPECT_TRUE(confirmed.take().empty());
  confirmed.note(1, {pages(2, 1)});
  EXPECT_EQ(numbers(confirmed.take()), Numbers{2});
  confirmed.note(1, {pages(1, 4)});
  EXPECT_EQ(numbers(confirmed.take()), (Numbers{1, 3, 4}));
}

TEST(ConfirmedPages, OnlyWhatIsCommonIsGivenBack) {
  ConfirmedPages confirmed(2);
  confirmed.note(0, {pages(0, 10)});
  confirmed.note(1, {pages(8, 10)});
  EXPECT_EQ(numbers(confirmed.take()), (Numbers{8, 9}));
  confirmed.note(0, {pages(12, 1), pages(16, 4)});
  EXPECT_EQ(numbers(confirmed.take()), (Numbers{12, 16, 17}));
}

TEST(ConfirmedPages, TwiceByTheSameIsNotByBoth) {
  ConfirmedPages confirmed(2);
  confirmed.note(0, {pages(5, 1)});
  confirmed.note(0, {pages(5, 1)});
  EXPECT_TRUE(confirmed.take().empty());
}

TEST(ConfirmedPages, GivenBackOnceWhateverComesAgain) {
  ConfirmedPages confirmed(2);
  confirmed.note(0, {pages(5, 3)});
  confirmed.note(1, {pages(5, 3), pages(6, 1)});
  EXPECT_EQ(numbers(confirmed.take()), (Numbers{5, 6, 7}));
  confirmed.note(0, {pages(4, 4)});
  confirmed.note(1, {pages(5, 3)});
  EXPECT_TRUE(confirmed.take().empty());
}

TEST(ConfirmedPages, OrderOfRangesDoesNotMatter) {
  ConfirmedPages confirmed(2);
  confirmed.note(0, {pages(9, 1), pages(1, 1), pages(5, 1), pages(0, 20)});
  confirmed.note(1, {pages(19, 1), pages(0, 1), pages(10, 1)});
  EXPECT_EQ(numbers(confirmed.take()), (Numbers{0, 10, 19}));
}

TEST(ConfirmedPages, EmptyRangesSayNothing) {
  ConfirmedPages confirmed(2);
  confirmed.note(0, {pages(3, 0)});
  confirmed.note(1, {pages(3, 0), pages(2, 2)});
  confirmed.note(0, {});
  EXPECT_TRUE(confirmed.take().empty());
}

TEST(ConfirmedPages, WhoLeavesIsNotWaitedFor) {
  ConfirmedPages confirmed(3);
  confirmed.note(0, {pages(1, 3)});
  confirmed.note(1, {pages(2, 3)});
  confirmed.leave(2);
  EXPECT_EQ(numbers(confirmed.take()), (Numbers{2, 3}));
  confirmed.leave(0);
  EXPECT_EQ(numbers(confirmed.take()), Numbers{4});
  confirmed.note(1, {pages(1, 1)});
  EXPECT_EQ(numbers(confirmed.take()), Numbers{1});
}

TEST(ConfirmedPages, NobodyLeftConfirmsNothing) {
  ConfirmedPages confirmed(2);
  confirmed.note(0, {pages(1, 3)});
  confirmed.leave(1);
  EXPECT_EQ(numbers(confirmed.take()), (Numbers{1, 2, 3}));
  confirmed.leave(0);
  EXPECT_TRUE(confirmed.take().empty());
}

// Against one set of numbers for each handover.
TEST(ConfirmedPages, AgreeWithSetsOfNumbers) {
  constexpr std::uint64_t kPages = 64;
  constexpr std::size_t kHandovers = 3;
  for (unsigned seed = 0; seed < 50; ++seed) {
    std::mt19937 random(seed);
    ConfirmedPages confirmed(kHandovers);
    std::set<std::uint64_t> each[kHandovers];
    Numbers given_back;
    for (int step = 0; step < 60; ++step) {
      const std::size_t handover = random() % kHandovers;
      const std::uint64_t first = random() % kPages;
      const PageRange range = pages(first, random() % (kPages - first + 1));
      confirmed.note(handover, {range});
      for (std::uint64_t i = 0; i < range.page_count; ++i) {
        each[handover].insert(first + i);
      }
      given_back.merge(numbers(confirmed.take()));
      Numbers expected;
      for (std::uint64_t page = 0; page < kPages; ++page) {
        if (each[0].contains(page) && each[1].contains(page) && each[2].contains(page)) {
          expected.insert(page);
        }
      }
      ASSERT_EQ(given_back, expected) << "seed " << seed << ", step " << step;
    }
  }
}

TEST(GiveBack, NothingConfirmedFreesNothing) {
  ConfirmedPages confirmed(1);
  const auto free = [](const std::vector<PageRange>&) -> Result<void> {
    ADD_FAILURE();
    return {};
  };
  EXPECT_EQ(give_back(confirmed, free), Original::kHere);
}

TEST(GiveBack, FreesEachConfirmationOnce) {
  ConfirmedPages confirmed(1);
  confirmed.note(0, {pages(7, 2)});
  Numbers freed;
  const auto free = [&](const std::vector<PageRange>& ranges) -> Result<void> {
    freed.merge(numbers(ranges));
    return {};
  };
  EXPECT_EQ(give_back(confirmed, free), Original::kHere);
  EXPECT_EQ(give_back(confirmed, free), Original::kHere);
  EXPECT_EQ(freed, (Numbers{7, 8}));
}

TEST(GiveBack, TellsOnlyThatTheProcessIsGone) {
  ConfirmedPages confirmed(1);
  const auto failing = [&](ErrorCode code) {
    confirmed.note(0, {pages(7, 2)});
    return give_back(confirmed, [&](const std::vector<PageRange>&) -> Result<void> {
      return fail(make_error(code, "free"));
    });
  };
  EXPECT_EQ(failing(ErrorCode::kNotFound), Original::kGone);
  EXPECT_EQ(failing(ErrorCode::kSystem), Original::kHere);
}

}  // namespace
}  // namespace migrate
