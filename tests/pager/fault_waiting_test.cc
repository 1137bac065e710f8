#include "pager/internal/fault_waiting.h"

#include <gtest/gtest.h>

namespace migrate {
namespace {

using std::chrono::microseconds;

/// A thread that walks through missing pages, and what it sees: how long a page takes depends on
/// whether the fault thread polls.
class WaitedWalk {
 public:
  explicit WaitedWalk(microseconds most) : waiting_(most) {}

  /// How many of so many faults were waited for by polling, for the answer and for the next fault.
  std::pair<int, int> run(int faults, microseconds polling, microseconds sleeping) {
    std::pair<int, int> polled{0, 0};
    for (int i = 0; i < faults; ++i) {
      waiting_.note_fault(now_);
      waiting_.note_activity();
      const bool polls = !waiting_.sleeps(now_, true);
      now_ += (polls ? polling : sleeping) / 2;
      waiting_.note_activity();
      const bool polls_on = !waiting_.sleeps(now_, false);
      now_ += (polls_on ? polling : sleeping) / 2;
      polled.first += polls ? 1 : 0;
      polled.second += polls_on ? 1 : 0;
    }
    return polled;
  }

 private:
  FaultWaiting waiting_;
  FaultWaiting::Clock::time_point now_ = FaultWaiting::Clock::now();
};

constexpr microseconds kMostPolling{200};
constexpr microseconds kQuickPage{40};
constexpr microseconds kSlowPage{140};

TEST(FaultWaiting, PollsWhereThatIsQuicker) {
  WaitedWalk walk(kMostPolling);
  walk.run(1000, kQuickPage, kSlowPage);
  const auto [answers, faults] = walk.run(10'000, kQuickPage, kSlowPage);
  EXPECT_GT(answers, 9'000);
  EXPECT_GT(faults, 9'000);
}

TEST(FaultWaiting, SleepsWherePollingIsInTheWay) {
  WaitedWalk walk(kMostPolling);
  walk.run(1000, kSlowPage, kQuickPage);
  const auto [answers, faults] = walk.run(10'000, kSlowPage, kQuickPage);
  EXPECT_LT(answers, 1'000);
  EXPECT_LT(faults, 1'000);
}

TEST(FaultWaiting, SleepsWhileNothingComes) {
  FaultWaiting waiting(kMostPolling);
  const auto now = FaultWaiting::Clock::now();
  waiting.note_activity();
  EXPECT_FALSE(waiting.sleeps(now, false));
  EXPECT_TRUE(waiting.sleeps(now + 10 * kMostPolling, false));
  EXPECT_TRUE(waiting.sleeps(now + 11 * kMostPolling, false));
}

TEST(FaultWaiting, SleepsBeforeTheFirstFault) {
  FaultWaiting waiting(kMostPolling);
  EXPECT_TRUE(waiting.sleeps(FaultWaiting::Clock::now(), false));
}

TEST(FaultWaiting, NeverPollsWhereNoneIsAllowed) {
  WaitedWalk walk(microseconds(0));
  EXPECT_EQ(walk.run(1000, kQuickPage, kSlowPage), std::pair(0, 0));
}

}  // namespace
}  // namespace migrate
