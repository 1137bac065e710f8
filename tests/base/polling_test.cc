#include "base/polling.h"

#include <gtest/gtest.h>

namespace migrate {
namespace {

using std::chrono::microseconds;

constexpr microseconds kMost{200};
constexpr microseconds kNever{0};

/// How many waits end in sleep until polling is tried again.
int waits_without_polling(Polling& polling) {
  int waits = 0;
  while (polling.limit() == kNever && waits < 10'000) {
    polling.note(false);
    ++waits;
  }
  return waits;
}

TEST(Polling, TriesForAShortTimeFirst) {
  const Polling polling(kMost);
  EXPECT_GT(polling.limit(), kNever);
  EXPECT_LT(polling.limit(), kMost);
}

TEST(Polling, GoesOnForAsLongAsAllowedWhileItHelps) {
  Polling polling(kMost);
  for (int i = 0; i < 3; ++i) {
    polling.note(true);
    EXPECT_EQ(polling.limit(), kMost);
  }
}

TEST(Polling, IsTriedEverMoreSeldomWhileItIsInVain) {
  Polling polling(kMost);
  int before = 0;
  for (int i = 0; i < 6; ++i) {
    polling.note(false);
    const int waits = waits_without_polling(polling);
    EXPECT_GT(waits, before);
    before = waits;
  }
}

TEST(Polling, IsNeverGivenUp) {
  Polling polling(kMost);
  for (int i = 0; i < 100; ++i) {
    polling.note(false);
    EXPECT_LT(waits_without_polling(polling), 1000);
    EXPECT_LE(polling.limit(), kMost);
  }
  EXPECT_EQ(polling.limit(), kMost);  // What came late may come within the longest try.
  polling.note(true);
  polling.note(false);
  EXPECT_LT(waits_without_polling(polling), 10);
}

TEST(Polling, IsNotDoneWhereNoneIsAllowed) {
  Polling polling(kNever);
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(polling.limit(), kNever);
    polling.note(false);
  }
}

}  // namespace
}  // namespace migrate
