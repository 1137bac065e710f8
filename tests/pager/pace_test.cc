#include "pager/internal/pace.h"

#include <gtest/gtest.h>

namespace migrate {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr std::uint64_t kMib = 1U << 20U;
const Pace::Clock::time_point kStart{seconds(1000)};

/// Milliseconds until `total` bytes were sent in pieces of 1 MiB.
long time_to_send(Pace& pace, std::uint64_t total) {
  auto now = kStart;
  for (std::uint64_t owed = total; owed > 0;) {
    const auto wait = pace.wait_for(now, owed);
    if (wait.count() > 0) {
      now += wait;
      continue;
    }
    pace.sent(now, kMib);
    owed -= kMib;
  }
  return std::chrono::duration_cast<milliseconds>(now - kStart).count();
}

TEST(Pace, HasNoLimitUnlessGiven) {
  Pace pace(0, milliseconds(0));
  EXPECT_EQ(time_to_send(pace, 100 * kMib), 0);
}

TEST(Pace, KeepsToTheLimit) {
  Pace pace(10 * kMib, milliseconds(0));
  EXPECT_NEAR(static_cast<double>(time_to_send(pace, 50 * kMib)), 4900, 50);
}

TEST(Pace, IsAsFastAsTheDeadlineNeeds) {
  Pace slow(kMib, seconds(5));
  EXPECT_LE(time_to_send(slow, 50 * kMib), 5000);
  Pace unlimited(0, seconds(5));  // Mode demand: all of the time is used.
  EXPECT_GT(time_to_send(unlimited, 50 * kMib), 2000);
  Pace fast(100 * kMib, seconds(5));
  EXPECT_LE(time_to_send(fast, 50 * kMib), 500);
}

TEST(Pace, HurriesWhenTheDeadlineIsOver) {
  Pace pace(kMib, milliseconds(10));
  static_cast<void>(pace.wait_for(kStart, kMib));
  pace.sent(kStart, kMib);
  EXPECT_EQ(pace.wait_for(kStart + seconds(1), kMib).count(), 0);
}

}  // namespace
}  // namespace migrate
