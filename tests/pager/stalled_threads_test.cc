#include "pager/internal/stalled_threads.h"

#include <gtest/gtest.h>

#include <cstdlib>

namespace migrate {
namespace {

constexpr std::uint64_t kRegionStart = std::uint64_t{1} << 32U;
using StalledClock = StalledThreads::Clock;
using std::chrono::milliseconds;
using std::chrono::nanoseconds;

class StalledThreadsTest : public testing::Test {
 protected:
  StalledThreadsTest() {
    PagerRegion region;
    region.destination = {kRegionStart, 1000};
    region.source_address = kRegionStart;
    if (!map_.add(region)) {
      std::abort();
    }
  }
  void fault(std::uint64_t page, StalledClock::time_point start) {
    const std::uint64_t address = kRegionStart + page * kPageBytes;
    map_.set_state({address, 1}, PageState::kRequested);
    stalled_.note_fault(address, start);
  }
  void settle(std::uint64_t page, PageState state) {
    map_.set_state({kRegionStart + page * kPageBytes, 1}, state);
  }
  std::uint64_t settled_ms() { return stalled_.settle(map_) / 1'000'000; }

  PageMap map_;
  StalledThreads stalled_;
  const StalledClock::time_point earlier_ = StalledClock::now() - milliseconds(100);
};

TEST_F(StalledThreadsTest, ThereAreNone) {
  EXPECT_EQ(stalled_.settle(map_), 0U);
}

TEST_F(StalledThreadsTest, WaitUntilTheirPageIsThere) {
  fault(1, earlier_);
  EXPECT_EQ(stalled_.settle(map_), 0U);
  settle(1, PageState::kPresent);
  EXPECT_GE(settled_ms(), 100U);
  EXPECT_EQ(stalled_.settle(map_), 0U);  // Once.
}

TEST_F(StalledThreadsTest, SeveralForOnePageAreAddedUp) {
  fault(1, earlier_);
  fault(1, earlier_);
  fault(2, earlier_);
  settle(1, PageState::kPresent);
  EXPECT_GE(settled_ms(), 200U);
  EXPECT_EQ(stalled_.settle(map_), 0U);
  settle(2, PageState::kZero);
  EXPECT_GE(settled_ms(), 100U);
}

TEST_F(StalledThreadsTest, AreWokenWhenTheirPageIsToBeAskedForAgain) {
  fault(1, earlier_);
  settle(1, PageState::kUnknown);  // The link broke.
  EXPECT_GE(settled_ms(), 100U);
}

TEST_F(StalledThreadsTest, AreWokenWhenTheirPageIsUnmapped) {
  fault(1, earlier_);
  map_.unmap({kRegionStart, 10});
  EXPECT_GE(settled_ms(), 100U);
}

TEST_F(StalledThreadsTest, AreManyWithoutEnd) {
  for (std::uint64_t i = 0; i < 1000; ++i) {
    fault(i, earlier_);
  }
  for (std::uint64_t i = 0; i < 1000; ++i) {
    settle(i, PageState::kPresent);
  }
  EXPECT_GE(settled_ms(), 100 * StalledThreads::kMost);
}

}  // namespace
}  // namespace migrate
