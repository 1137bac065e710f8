#include "pager/internal/prefetcher.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace migrate {
namespace {

constexpr std::uint32_t kMostWindow = 64;
constexpr std::uint32_t kWalker = 7;

struct Touch {
  std::uint32_t thread;
  std::uint64_t page;
};
using Trace = std::vector<Touch>;

/// A process whose pages come when they are asked for, at once: only touches of others fault.
class Toucher {
 public:
  explicit Toucher(std::uint32_t most_pages = kMostWindow) : prefetcher_(most_pages) {}

  void touch(std::uint32_t thread, std::uint64_t page) {
    touched_.insert(page);
    if (present_.contains(page)) {
      return;
    }
    ++faults_;
    present_.insert(page);
    const Prefetcher::Window window = prefetcher_.note_fault(thread, page, false);
    std::uint32_t asked = 0;
    for (std::uint32_t i = 0; i < window.page_count; ++i) {
      const std::uint64_t ahead =
          window.first + static_cast<std::uint64_t>(window.stride * std::int64_t{i});
      if (present_.insert(ahead).second) {
        ++asked;
      }
    }
    prefetched_ += asked;
    largest_ = std::max(largest_, window.page_count);
    if (window.page_count > 0) {
      prefetcher_.note_asked(window, asked);
    }
  }
  void advise(std::vector<AccessAdvice> advice) { prefetcher_.advise(std::move(advice)); }
  void run(const Trace& trace) {
    for (const Touch& touched : trace) {
      touch(touched.thread, touched.page);
    }
  }
  /// By somebody else, such as a push.
  void bring(std::uint64_t page) { present_.insert(page); }

  std::uint64_t faults() const { return faults_; }
  std::uint64_t prefetched() const { return prefetched_; }
  std::uint32_t largest_window() const { return largest_; }
  std::uint64_t pages() const { return touched_.size(); }
  const Prefetcher::Counters& counters() const { return prefetcher_.counters(); }

 private:
  Prefetcher prefetcher_;
  std::set<std::uint64_t> present_;
  std::set<std::uint64_t> touched_;
  std::uint64_t faults_ = 0;
  std::uint64_t prefetched_ = 0;
  std::uint32_t largest_ = 0;
};

Trace walk(std::uint64_t first, std::int64_t stride, std::uint64_t count) {
  Trace trace;
  for (std::uint64_t i = 0; i < count; ++i) {
    trace.push_back({kWalker, first + static_cast<std::uint64_t>(stride) * i});
  }
  return trace;
}

/// One page of each, in turn.
Trace together(const std::vector<Trace>& traces) {
  Trace all;
  for (std::size_t i = 0; i < traces.front().size(); ++i) {
    for (const Trace& trace : traces) {
      all.push_back(trace[i]);
    }
  }
  return all;
}

Trace at_random(std::uint64_t pages, std::size_t count) {
  std::mt19937_64 random(1);
  Trace trace;
  for (std::size_t i = 0; i < count; ++i) {
    trace.push_back({kWalker, 1'000'000 + random() % pages});
  }
  return trace;
}

Trace of_thread(std::uint32_t thread, Trace trace) {
  for (Touch& touched : trace) {
    touched.thread = thread;
  }
  return trace;
}

struct Case {
  std::string name;
  Trace trace;
  double most_faults;  ///< For each page that was touched.
  double most_wasted;  ///< Pages asked for and never touched, for each that was touched.
};

class OfTrace : public testing::TestWithParam<Case> {};

INSTANTIATE_TEST_SUITE_P(
    Traces, OfTrace,
    testing::Values(Case{"Forwards", walk(1'000'000, 1, 4000), 0.03, 0.03},
                    Case{"Backwards", walk(1'000'000, -1, 4000), 0.03, 0.03},
                    Case{"Strided", walk(1'000'000, 37, 2000), 0.05, 0.05},
                    Case{"StridedBackwards", walk(1'000'000, -512, 1500), 0.05, 0.05},
                    Case{"ThreeArraysAtOnce",
                         together({walk(1'000'000, 1, 3000), walk(2'000'000, 1, 3000),
                                   walk(3'000'000, -1, 3000)}),
                         0.04, 0.05},
                    Case{"ThreadsApart",
                         together({of_thread(1, walk(1'000'000, 1, 3000)),
                                   of_thread(2, walk(2'000'000, 5, 3000)),
                                   of_thread(3, at_random(100'000'000, 3000))}),
                         0.37, 0.05},
                    Case{"AtRandom", at_random(100'000'000, 5000), 1.0, 0.01},
                    Case{"AtRandomInLittle", at_random(5'000, 20'000), 1.0, 0.5}),
    [](const auto& each) { return each.param.name; });

TEST_P(OfTrace, FaultsSeldomAndAsksForLittleInVain) {
  Toucher process;
  process.run(GetParam().trace);
  const auto pages = static_cast<double>(process.pages());
  EXPECT_LE(static_cast<double>(process.faults()) / pages, GetParam().most_faults);
  const double brought = static_cast<double>(process.faults() + process.prefetched());
  EXPECT_LE((brought - pages) / pages, GetParam().most_wasted);
  EXPECT_LE(process.largest_window(), kMostWindow);
}

TEST_P(OfTrace, AsksForNothingWhereNothingIsAllowed) {
  Toucher process(0);
  process.run(GetParam().trace);
  EXPECT_EQ(process.faults(), process.pages());
  EXPECT_EQ(process.prefetched(), 0U);
}

TEST_P(OfTrace, NeverTellsOfMoreThanWasAskedFor) {
  Toucher process;
  process.run(GetParam().trace);
  EXPECT_LE(process.counters().useful + process.counters().wasted, process.prefetched());
}

TEST(Prefetcher, TellsWhatWasOfUse) {
  Toucher process;
  process.run(walk(1'000'000, 1, 4000));
  EXPECT_GE(process.counters().useful, process.prefetched() - kMostWindow);
  EXPECT_EQ(process.counters().wasted, 0U);
  EXPECT_EQ(process.counters().late, 0U);
}

TEST(Prefetcher, TellsWhatWasInVain) {
  Toucher process;
  for (std::uint64_t i = 0; i < 500; ++i) {  // Two neighbours each, and nothing that follows.
    process.run(walk(1'000'000 + i * 100'000, 1, 2));
  }
  EXPECT_GE(process.counters().wasted + 4 * 16, process.prefetched());
  EXPECT_EQ(process.counters().useful, 0U);
}

TEST(Prefetcher, WindowsGrowWithSuccess) {
  Toucher process;
  process.run(walk(1'000'000, 1, 40));
  EXPECT_LT(process.largest_window(), kMostWindow);
  process.run(walk(1'000'040, 1, 1000));
  EXPECT_EQ(process.largest_window(), kMostWindow);
}

TEST(Prefetcher, WindowsBeginSmallerAfterWaste) {
  Toucher process;
  for (std::uint64_t i = 0; i < 100; ++i) {
    process.run(walk(1'000'000 + i * 100'000, 1, 2));
  }
  const std::uint64_t before = process.prefetched();
  process.run(walk(99'000'000, 1, 2));
  EXPECT_LE(process.prefetched() - before, 2U);
  process.run(walk(99'000'002, 1, 1000));  // And are large again where it pays.
  EXPECT_EQ(process.largest_window(), kMostWindow);
}

TEST(Prefetcher, AFaultInAWindowIsLateAndAsksFurtherAhead) {
  Prefetcher prefetcher(kMostWindow);
  prefetcher.note_fault(kWalker, 100, false);
  const auto first = prefetcher.note_fault(kWalker, 101, false);
  ASSERT_GT(first.page_count, 2U);
  prefetcher.note_asked(first, first.page_count);
  const auto next = prefetcher.note_fault(kWalker, 102, true);  // It has not come yet.
  EXPECT_EQ(next.first, first.first + first.page_count);
  EXPECT_GT(next.page_count, 0U);
  EXPECT_EQ(prefetcher.counters().late, 1U);
}

TEST(Prefetcher, AFaultInAWindowThatWasNotAskedForAsksAgain) {
  Prefetcher prefetcher(kMostWindow);
  prefetcher.note_fault(kWalker, 100, false);
  const auto first = prefetcher.note_fault(kWalker, 101, false);
  prefetcher.note_asked(first, 0);  // Too much was on its way.
  const auto again = prefetcher.note_fault(kWalker, 102, false);
  EXPECT_EQ(again.first, 103U);
  EXPECT_GT(again.page_count, 0U);
  EXPECT_EQ(prefetcher.counters().late, 0U);
  EXPECT_EQ(prefetcher.counters().useful, 0U);
}

TEST(Prefetcher, LateFaultsDoNotAskForEverMore) {
  Prefetcher prefetcher(kMostWindow);
  prefetcher.note_fault(kWalker, 100, false);
  std::uint64_t until = 0;
  for (std::uint64_t page = 101; page < 400; ++page) {
    const auto window = prefetcher.note_fault(kWalker, page, page > 101);
    until = window.page_count > 0 ? window.first + window.page_count : until;
    EXPECT_LE(until, page + 1 + 3 * kMostWindow);
    prefetcher.note_asked(window, window.page_count);
  }
}

TEST(Prefetcher, AStreamGoesOnBehindWhatAPushHasBrought) {
  Toucher process;
  process.run(walk(1'000'000, 1, 10));
  for (std::uint64_t page = 1'000'010; page < 1'000'030; ++page) {
    process.bring(page);
  }
  const std::uint64_t before = process.faults();
  process.run(walk(1'000'010, 1, 200));
  EXPECT_LE(process.faults() - before, 4U);
}

TEST(Prefetcher, StaysAboveTheFirstPage) {
  Prefetcher prefetcher(kMostWindow);
  prefetcher.note_fault(kWalker, 12, false);
  prefetcher.note_fault(kWalker, 11, false);
  const auto window = prefetcher.note_fault(kWalker, 10, false);
  ASSERT_GT(window.page_count, 0U);
  EXPECT_EQ(window.stride, -1);
  EXPECT_LE(window.page_count, window.first);
}

TEST(Prefetcher, TakesTheWordOfTheProcess) {
  constexpr std::uint64_t kRange = 256;
  const std::vector<AccessAdvice> advice = {
      {.range = {1000 * kPageBytes, kRange}, .pattern = AccessPattern::kSequential},
      {.range = {2000 * kPageBytes, kRange}, .pattern = AccessPattern::kRandom}};
  Toucher demand(0);
  demand.advise(advice);
  demand.run(walk(1000, 1, kRange));
  EXPECT_EQ(demand.faults(), 4U);  // 64 pages are asked for behind each of them, but at the end.
  EXPECT_EQ(demand.prefetched(), kRange - 4);
  demand.run(walk(1000 + kRange, 1, 100));
  EXPECT_EQ(demand.faults(), 104U);
  Toucher lazy;
  lazy.advise(advice);
  lazy.run(walk(2000, 1, kRange));
  EXPECT_EQ(lazy.faults(), kRange);
  lazy.run(walk(2000 + kRange, 1, 100));
  EXPECT_GT(lazy.prefetched(), 0U);
  lazy.advise({});
  lazy.run(walk(2000 + 2 * kRange, 1, kRange));
  EXPECT_EQ(lazy.counters().late, 0U);
}

TEST(Prefetcher, AsksOnceForWhatIsOnItsWay) {
  Prefetcher prefetcher(0);
  prefetcher.advise({{.range = {1000 * kPageBytes, 256}}});
  EXPECT_EQ(prefetcher.note_fault(kWalker, 1000, false).page_count, 64U);
  EXPECT_EQ(prefetcher.note_fault(kWalker, 1003, true).page_count, 0U);
  EXPECT_EQ(prefetcher.note_fault(kWalker, 1255, false).page_count, 0U);  // There is no more.
}

TEST(Prefetcher, HasAPlaceForEveryThread) {
  Toucher process;
  for (std::uint32_t thread = 1; thread < 2000; ++thread) {
    process.run(of_thread(thread, walk(std::uint64_t{thread} * 1'000'000, 1, 3)));
  }
  EXPECT_GT(process.prefetched(), 0U);
  EXPECT_LE(process.counters().useful + process.counters().wasted, process.prefetched());
}

}  // namespace
}  // namespace migrate
