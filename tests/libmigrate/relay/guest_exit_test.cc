#include "libmigrate/relay/guest_exit.h"

#include <gtest/gtest.h>

namespace migrate {
namespace {

constexpr int kStatus = 0x2a00;

GuestExit ended(bool keep_streams) {
  GuestExit exit;
  exit.begin(kStatus, keep_streams, {}, {}, {});
  return exit;
}

GuestExit adopted(const GuestExit& exit) {
  wire::GuestRelayState state;
  exit.note(state);
  GuestExit later;
  later.adopt(state);
  return later;
}

TEST(GuestExit, IsToldAgainOnEachLinkUntilHomeHasConfirmedIt) {
  GuestExit exit = ended(false);
  for (int link = 0; link < 3; ++link) {
    EXPECT_TRUE(exit.is_due());
    exit.set_sent();
    EXPECT_FALSE(exit.is_due());
    EXPECT_FALSE(exit.is_acknowledged());
    exit.begin_again();
  }
  exit.set_sent();
  exit.accept_ack(true, true);
  EXPECT_TRUE(exit.is_acknowledged());
  exit.begin_again();
  EXPECT_FALSE(exit.is_due());
}

TEST(GuestExit, IsNotConfirmedByAnAnswerToWhatWasToldBeforeTheDescendantsEnded) {
  GuestExit exit = ended(true);
  exit.set_sent();
  exit.end_descendants();
  exit.accept_ack(false, true);
  EXPECT_FALSE(exit.is_acknowledged());
  EXPECT_TRUE(exit.is_due());
  exit.set_sent();
  exit.accept_ack(true, true);
  EXPECT_TRUE(exit.is_acknowledged());
}

TEST(GuestExit, OfDescendantsIsToldOnceMore) {
  GuestExit exit = ended(true);
  exit.set_sent();
  exit.accept_ack(false, true);
  EXPECT_TRUE(exit.is_acknowledged());
  EXPECT_TRUE(exit.keeps_streams());
  exit.end_descendants();
  EXPECT_FALSE(exit.is_acknowledged());
  EXPECT_FALSE(exit.keeps_streams());
  EXPECT_TRUE(exit.is_due());
}

TEST(GuestExit, IsConfirmedByAHomeThatThinksItOver) {
  GuestExit exit;
  exit.accept_ack(false, false);
  EXPECT_TRUE(exit.is_home_over());
  EXPECT_FALSE(exit.is_acknowledged());  // There is no end yet.
  exit.begin(kStatus, true, {}, {}, {});
  EXPECT_TRUE(exit.is_due());
  exit.accept_ack(false, false);
  EXPECT_TRUE(exit.is_acknowledged());
  exit.end_descendants();
  EXPECT_TRUE(exit.is_acknowledged());  // Nobody would hear of it.
}

TEST(GuestExit, GoesOnAsItWasNoted) {
  EXPECT_FALSE(adopted(GuestExit()).has_begun());
  GuestExit exit = ended(true);
  exit.set_sent();
  EXPECT_TRUE(adopted(exit).is_due());
  EXPECT_TRUE(adopted(exit).keeps_streams());
  EXPECT_EQ(adopted(exit).told().wait_status(), kStatus);
  exit.accept_ack(false, true);
  EXPECT_TRUE(adopted(exit).is_acknowledged());
  EXPECT_FALSE(adopted(exit).is_due());
}

}  // namespace
}  // namespace migrate
