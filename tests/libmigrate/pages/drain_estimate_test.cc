#include "libmigrate/pages/drain_estimate.h"

#include <gtest/gtest.h>

namespace migrate {
namespace {

constexpr std::int64_t kStepUs = 100'000;
constexpr std::int64_t kBeginUs = 5'000'000;

/// So many steps in each of which ten pages arrived; `now_us` is that of the last.
DrainEstimate drained(int steps, std::uint64_t& owed, std::int64_t& now_us) {
  DrainEstimate estimate;
  now_us = kBeginUs;
  estimate.note(now_us, owed);
  for (int i = 0; i < steps; ++i) {
    now_us += kStepUs;
    owed -= 10;
    estimate.note(now_us, owed);
  }
  return estimate;
}

TEST(DrainEstimate, TellsByTheRateWhenNothingWillBeOwed) {
  std::uint64_t owed = 1000;
  std::int64_t now_us = 0;
  const DrainEstimate estimate = drained(20, owed, now_us);
  ASSERT_TRUE(estimate.remaining_us(now_us));
  EXPECT_NEAR(static_cast<double>(*estimate.remaining_us(now_us)), 80 * kStepUs, kStepUs);
}

TEST(DrainEstimate, SaysNothingBeforeAnythingArrived) {
  DrainEstimate estimate;
  EXPECT_FALSE(estimate.remaining_us(kBeginUs));
  estimate.note(kBeginUs, 1000);
  EXPECT_FALSE(estimate.remaining_us(kBeginUs));
}

TEST(DrainEstimate, SaysNothingAWhileAfterTheLastNote) {
  std::uint64_t owed = 1000;
  std::int64_t now_us = 0;
  const DrainEstimate estimate = drained(20, owed, now_us);
  EXPECT_TRUE(estimate.remaining_us(now_us + 1'000'000));
  EXPECT_FALSE(estimate.remaining_us(now_us + 2'500'000));
}

TEST(DrainEstimate, SaysNothingWhileNotesTellOfNoProgress) {
  std::uint64_t owed = 100'000;
  std::int64_t now_us = 0;
  DrainEstimate estimate = drained(20, owed, now_us);
  for (int i = 0; i < 25; ++i) {
    now_us += kStepUs;
    estimate.note(now_us, owed);
  }
  EXPECT_FALSE(estimate.remaining_us(now_us));
  for (int i = 0; i < 5; ++i) {  // It goes on.
    now_us += kStepUs;
    owed -= 10;
    estimate.note(now_us, owed);
  }
  EXPECT_TRUE(estimate.remaining_us(now_us));
}

}  // namespace
}  // namespace migrate
