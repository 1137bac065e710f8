// A process is to leave its home, and a doubt whether it did: how each ends.
#include <signal.h>

#include "tests/libmigrate/home/home_world.h"

namespace migrate::home_testing {
namespace {

class HomeDoubt : public HomeWorld {
 protected:
  HomeDoubt() { doings_.outcome = MoveOutcome::kInDoubt; }

  /// The process ends by itself so long after it is known to run there.
  void exits_later(int milliseconds = 100) {
    in("Serving", [this, milliseconds] { later(milliseconds, [this] { exits(0); }); });
  }
};

TEST_F(HomeDoubt, ARefusedMoveLeavesNothing) {
  doings_.outcome = MoveOutcome::kRefused;
  Client& client = asking(MoveWait::kResumed);
  ASSERT_TRUE(move_away());
  EXPECT_EQ(client.exit(), MIGRATE_REFUSED);
  EXPECT_EQ(phases(), "Over");
  EXPECT_EQ(record_->phase(), HomePhase::kStayed);
  EXPECT_FALSE(has_file());
  EXPECT_FALSE(row());
}

TEST_F(HomeDoubt, WhoAsksWhileAMoveFailsIsToldToTryAgain) {
  doings_.outcome = MoveOutcome::kFailed;
  Client& asks = asking(MoveWait::kExit);
  Client& other = ask({{"command", "move"}});
  ASSERT_TRUE(move_away());
  EXPECT_EQ(asks.exit(), MIGRATE_FAILED);
  EXPECT_EQ(other.exit(), MIGRATE_FAILED);
  EXPECT_NE(other.error().find("just failed"), std::string::npos);
  EXPECT_FALSE(has_file());
}

TEST_F(HomeDoubt, TheDestinationSaysThatItRuns) {
  Client& client = asking(MoveWait::kResumed);
  in("InDoubt", [this] {
    EXPECT_EQ(record_->phase(), HomePhase::kInDoubt);
    later(300, [this] { doings_.fate = Fate::kRuns; });
  });
  exits_later();
  ASSERT_TRUE(move_away());
  EXPECT_EQ(phases(), "InDoubt Serving Ended Over");
  EXPECT_EQ(client.exit(), MIGRATE_DONE);
  EXPECT_EQ(client.events().front(), "run");
  EXPECT_TRUE(doings_.has("settle"));
  EXPECT_FALSE(doings_.has("resume here"));
}

TEST_F(HomeDoubt, TheDestinationSaysThatItNeverRan) {
  Client& client = asking(MoveWait::kResumed);
  Client& other = ask({{"command", "check"}});
  in("InDoubt", [this] { later(300, [this] { doings_.fate = Fate::kNeverRan; }); });
  ASSERT_TRUE(move_away());
  EXPECT_EQ(phases(), "InDoubt Over");
  EXPECT_TRUE(doings_.has("resume here"));
  EXPECT_FALSE(doings_.has("settle"));
  EXPECT_EQ(client.exit(), MIGRATE_FAILED);
  EXPECT_EQ(other.exit(), MIGRATE_ERROR);
  EXPECT_NE(other.error().find("in doubt"), std::string::npos);
  EXPECT_EQ(record_->phase(), HomePhase::kStayed);
  EXPECT_FALSE(has_file());
  EXPECT_FALSE(row());
}

// What the destination has said with the answer to Run needs no waiting.
TEST_F(HomeDoubt, ItNeverRanAndThatIsKnownAtOnce) {
  doings_.fate = Fate::kNeverRan;
  asking(MoveWait::kResumed);
  ASSERT_TRUE(move_away());
  EXPECT_EQ(milliseconds(), 0);
  EXPECT_TRUE(doings_.has("resume here"));
}

TEST_F(HomeDoubt, TheDestinationSaysThatItHasEnded) {
  doings_.wait_status = 3 << 8;
  Client& client = asking(MoveWait::kExit);
  in("InDoubt", [this] { later(100, [this] { doings_.fate = Fate::kEnded; }); });
  ASSERT_TRUE(move_away());
  EXPECT_EQ(phases(), "InDoubt Serving Ended Over");
  EXPECT_TRUE(doings_.has("end as 768 in Ending"));
  EXPECT_EQ(client.exit(), MIGRATE_LOST);
  EXPECT_GE(milliseconds(), 2000);
}

TEST_F(HomeDoubt, ItCallsFromThere) {
  asking(MoveWait::kResumed);
  in("InDoubt", [this] { later(500, [this] { call(); }); });
  exits_later();
  ASSERT_TRUE(move_away());
  EXPECT_TRUE(doings_.has("confirm"));
  EXPECT_EQ(phases(), "InDoubt Serving Ended Over");
  EXPECT_TRUE(place_.relay->exit_acknowledged());  // By another call.
}

TEST_F(HomeDoubt, AConnectionThatSaysNothingDecidesNothing) {
  asking(MoveWait::kResumed);
  in("InDoubt", [this] {
    later(100, [this] { connect(Purpose::kHome); });  // Hangs up.
    later(400, [this] {
      EXPECT_FALSE(doings_.has("confirm"));
      doings_.fate = Fate::kNeverRan;
    });
  });
  ASSERT_TRUE(move_away());
  EXPECT_EQ(phases(), "InDoubt Over");
}

TEST_F(HomeDoubt, AnOperatorResumesIt) {
  asking(MoveWait::kResumed);
  Client* operators = nullptr;
  in("InDoubt", [&] { operators = &resolve("resume-source"); });
  ASSERT_TRUE(move_away());
  EXPECT_EQ(doings_.log, (std::vector<std::string>{"attempt", "ask once more", "resume here"}));
  EXPECT_EQ(operators->exit(), MIGRATE_DONE);
  EXPECT_GE(milliseconds(), 2000);  // In which it may call.
}

TEST_F(HomeDoubt, AnOperatorResumesItInVain) {
  asking(MoveWait::kResumed);
  doings_.can_resume = false;
  Client* operators = nullptr;
  in("InDoubt", [&] { operators = &resolve("resume-source"); });
  ASSERT_TRUE(move_away());
  EXPECT_EQ(operators->exit(), MIGRATE_FAILED);
}

TEST_F(HomeDoubt, AnOperatorGivesItUp) {
  Client& client = asking(MoveWait::kExit);
  Client* operators = nullptr;
  in("InDoubt", [&] { operators = &resolve("give-up"); });
  ASSERT_TRUE(move_away());
  EXPECT_EQ(operators->exit(), MIGRATE_DONE);
  EXPECT_EQ(phases(), "InDoubt Serving Ended Over");
  EXPECT_TRUE(doings_.has("end as 9 in Ending"));
  EXPECT_EQ(client.exit(), MIGRATE_LOST);
  EXPECT_NE(client.error().find("gave it up"), std::string::npos);
  EXPECT_EQ(row()->exit_status, SIGKILL);
}

TEST_F(HomeDoubt, AnOperatorAndTheDestinationAtOnce) {
  doings_.answer = Fate::kRuns;
  asking(MoveWait::kResumed);
  Client* operators = nullptr;
  in("InDoubt", [&] { operators = &resolve("resume-source"); });
  exits_later();
  ASSERT_TRUE(move_away());
  EXPECT_EQ(operators->exit(), MIGRATE_REFUSED);
  EXPECT_FALSE(doings_.has("resume here"));
  EXPECT_EQ(phases(), "InDoubt Serving Ended Over");
}

TEST_F(HomeDoubt, GivenUpWhenItNeverRan) {
  doings_.answer = Fate::kNeverRan;
  asking(MoveWait::kResumed);
  Client* operators = nullptr;
  in("InDoubt", [&] { operators = &resolve("give-up"); });
  ASSERT_TRUE(move_away());
  EXPECT_EQ(operators->exit(), MIGRATE_REFUSED);
  EXPECT_TRUE(doings_.has("resume here"));
  EXPECT_EQ(phases(), "InDoubt Over");
}

TEST_F(HomeDoubt, AnOperatorAndACallAtOnce) {
  asking(MoveWait::kResumed);
  Client* operators = nullptr;
  in("InDoubt", [&] {
    operators = &resolve("resume-source");
    later(1500, [this] { call(); });
  });
  exits_later();
  ASSERT_TRUE(move_away());
  EXPECT_TRUE(doings_.has("confirm"));
  EXPECT_FALSE(doings_.has("resume here"));
  EXPECT_EQ(operators->exit(), MIGRATE_REFUSED);
}

TEST_F(HomeDoubt, OfTwoOperatorsTheFirstDecides) {
  asking(MoveWait::kResumed);
  Client* first = nullptr;
  Client* second = nullptr;
  in("InDoubt", [&] {
    first = &resolve("resume-source");
    second = &resolve("give-up");
  });
  ASSERT_TRUE(move_away());
  EXPECT_EQ(first->exit(), MIGRATE_DONE);
  EXPECT_EQ(second->exit(), MIGRATE_ERROR);
  EXPECT_TRUE(doings_.has("resume here"));
}

TEST_F(HomeDoubt, WhoMayNotLookIntoItMayNotDecide) {
  doings_.may_be_decided = false;
  asking(MoveWait::kResumed);
  Client* operators = nullptr;
  in("InDoubt", [&] {
    operators = &resolve("resume-source");
    later(3000, [this] { doings_.fate = Fate::kNeverRan; });
  });
  ASSERT_TRUE(move_away());
  EXPECT_EQ(operators->exit(), MIGRATE_REFUSED);
  EXPECT_FALSE(doings_.has("ask once more"));
}

TEST_F(HomeDoubt, WhoAskedHearsOfALongDoubtAndTheWorkerGoesOn) {
  Client& client = asking(MoveWait::kResumed);
  doings_.waits_for = "b:7070: silence";
  in("InDoubt", [&] {
    later(9'900, [&] { EXPECT_EQ(client.exit(), -1); });
    later(10'100, [&] {
      EXPECT_EQ(client.exit(), MIGRATE_LOST);
      EXPECT_EQ(row()->waits_for, "in doubt whether it runs at b:7070: silence");
      EXPECT_EQ(row()->state, ProcessState::kMoving);
      doings_.fate = Fate::kRuns;
    });
  });
  exits_later();
  ASSERT_TRUE(move_away());
  EXPECT_EQ(phases(), "InDoubt Serving Ended Over");
}

TEST_F(HomeDoubt, KilledInDoubtSoIsTheProcessThatRuns) {
  asking(MoveWait::kResumed);
  in("InDoubt", [this] {
    doings_.state = -1;
    later(200, [this] {
      EXPECT_TRUE(doings_.has("stop serving"));
      call();
    });
  });
  in("Serving", [this] {
    later(900, [this] {  // It has called again.
      EXPECT_EQ(place_.signals, std::vector<int>{SIGKILL});
      exits(SIGKILL);
    });
  });
  ASSERT_TRUE(move_away());
  EXPECT_FALSE(doings_.has("settle"));
  EXPECT_EQ(row()->exit_status, SIGKILL);
}

TEST_F(HomeDoubt, KilledInDoubtWhoseProcessNeverRan) {
  doings_.can_resume = false;
  Client& client = asking(MoveWait::kResumed);
  in("InDoubt", [this] {
    doings_.state = -1;
    later(200, [this] { doings_.fate = Fate::kNeverRan; });
  });
  ASSERT_TRUE(move_away());
  EXPECT_EQ(phases(), "InDoubt Over");
  EXPECT_EQ(client.exit(), MIGRATE_FAILED);
}

// Nobody can ask the kernel about what is gone.
TEST_F(HomeDoubt, KilledInDoubtAndGivenUp) {
  doings_.may_be_decided = false;
  asking(MoveWait::kResumed);
  Client* operators = nullptr;
  in("InDoubt", [&] {
    doings_.state = -1;
    later(100, [&] { operators = &resolve("give-up"); });
  });
  ASSERT_TRUE(move_away());
  EXPECT_EQ(operators->exit(), MIGRATE_DONE);
  EXPECT_EQ(row()->state, ProcessState::kExited);
}

}  // namespace
}  // namespace migrate::home_testing
