// A process has ended, and children of it have not.
#include <signal.h>
#include <unistd.h>

#include "tests/libmigrate/home/home_world.h"

namespace migrate::home_testing {
namespace {

class HomeChildren : public HomeWorld {
 protected:
  HomeChildren() { most_turns_ = 10'000; }  // Minutes of silence, a second each.

  /// It ends as soon as it is away, and leaves children.
  void leaves_children(int wait_status = 0) {
    in("Serving", [this, wait_status] { exits(wait_status, true); });
  }
};

TEST_F(HomeChildren, AKeeperServesThemUntilAllHaveEnded) {
  Client& client = asking(MoveWait::kExit);
  leaves_children();
  in("ChildrenLeft", [&] {
    EXPECT_EQ(client.exit(), MIGRATE_DONE);  // Of the process.
    EXPECT_EQ(row()->state, ProcessState::kChildrenLeft);
    EXPECT_TRUE(record_->text().has_keeper());
    later(5000, [this] { children_end(); });
  });
  ASSERT_TRUE(move_away());
  EXPECT_EQ(phases(), "Serving ChildrenLeft Ended Over");
  EXPECT_EQ(doings_.log, (std::vector<std::string>{"attempt", "settle", "make keeper",
                                                   "end as 0 in Ending, keeper noted",
                                                   "stop serving", "keeper ends"}));
  EXPECT_FALSE(record_->text().has_keeper());
  EXPECT_EQ(row()->state, ProcessState::kExited);
  EXPECT_GE(milliseconds(), 5000);
}

TEST_F(HomeChildren, TheyNeedNothingWhenNothingIsOwed) {
  doings_.done = true;
  leaves_children();
  ASSERT_TRUE(move_away());
  EXPECT_EQ(phases(), "Serving Ended Over");
  EXPECT_FALSE(doings_.has("make keeper"));
}

TEST_F(HomeChildren, TheyAreServedUntilNothingIsOwed) {
  leaves_children();
  in("ChildrenLeft", [this] { later(500, [this] { doings_.done = true; }); });
  ASSERT_TRUE(move_away());
  EXPECT_TRUE(doings_.has("free all of keeper"));
  EXPECT_TRUE(doings_.has("keeper ends"));
  EXPECT_LT(milliseconds(), 4000);
}

TEST_F(HomeChildren, TheyUseStreamsWhenNothingIsOwed) {
  const UniqueFd home_end = add_stream(4);
  doings_.done = true;
  leaves_children();
  in("ChildrenLeft", [this] {
    later(3000, [this] {
      EXPECT_EQ(row()->waits_for.find("tcp://b:7070"), 0U);  // Nothing was heard of them.
      children_end();
    });
  });
  ASSERT_TRUE(move_away());
  EXPECT_EQ(phases(), "Serving ChildrenLeft Ended Over");
  EXPECT_GE(milliseconds(), 3000);
  EXPECT_TRUE(row()->waits_for.empty());
}

TEST_F(HomeChildren, WithoutAKeeperTheyAreToldThatTheirMemoryIsLost) {
  doings_.can_make_keeper = false;
  leaves_children();
  in("ChildrenLeft", [this] {
    EXPECT_FALSE(record_->text().has_keeper());
    later(300, [this] {
      EXPECT_EQ(place_.signals, std::vector<int>{SIGKILL});
      children_end();
    });
  });
  ASSERT_TRUE(move_away());
  EXPECT_TRUE(doings_.has("end as 0 in Ending"));
  EXPECT_EQ(phases(), "Serving ChildrenLeft Ended Over");
}

TEST_F(HomeChildren, WhoKillsTheirKeeperKillsThem) {
  leaves_children();
  in("ChildrenLeft", [this] {
    later(200, [this] {
      EXPECT_TRUE(place_.signals.empty());
      doings_.keeper_state = -1;
    });
    later(400, [this] {
      EXPECT_EQ(place_.signals, std::vector<int>{SIGKILL});  // Once.
      children_end();
    });
  });
  ASSERT_TRUE(move_away());
  EXPECT_FALSE(doings_.has("keeper ends"));
  EXPECT_EQ(row()->state, ProcessState::kExited);
}

TEST_F(HomeChildren, AKeeperThatIsKilledWhenNothingIsOwedKillsNobody) {
  const UniqueFd home_end = add_stream(4);
  doings_.done = true;
  leaves_children();
  in("ChildrenLeft", [this] {
    doings_.keeper_state = -1;
    later(500, [this] {
      EXPECT_TRUE(place_.signals.empty());
      children_end();
    });
  });
  ASSERT_TRUE(move_away());
  EXPECT_EQ(phases(), "Serving ChildrenLeft Ended Over");
}

TEST_F(HomeChildren, AfterTooLongASilenceTheyAreGivenUp) {
  around_.end_waiting_s = 30;
  leaves_children();
  in("ChildrenLeft", [this] {
    doings_.waits_for = "b:7070: silence";
    later(29'000, [this] { EXPECT_EQ(record_->phase(), HomePhase::kChildrenLeft); });
  });
  ASSERT_TRUE(move_away());
  EXPECT_GE(milliseconds(), 30'000);
  EXPECT_LT(milliseconds(), 34'000);
  EXPECT_TRUE(doings_.has("keeper ends"));
  EXPECT_TRUE(row()->waits_for.empty());
}

TEST_F(HomeChildren, WithoutALimitTheyNeverAre) {
  around_.end_waiting_s = 0;
  leaves_children();
  in("ChildrenLeft", [this] {
    doings_.waits_for = "b:7070: silence";
    later(40'000, [this] { children_end(); });
  });
  ASSERT_TRUE(move_away());
  EXPECT_GE(milliseconds(), 40'000);
}

TEST_F(HomeChildren, APlaceThatIsHeardInTimeStartsTheLimitAnew) {
  around_.end_waiting_s = 30;
  leaves_children();
  in("ChildrenLeft", [this] {
    doings_.waits_for = "b:7070: silence";
    later(20'000, [this] { doings_.waits_for.clear(); });
    later(20'100, [this] { doings_.waits_for = "b:7070: silence"; });
    later(45'000, [this] { children_end(); });
  });
  ASSERT_TRUE(move_away());
  EXPECT_GE(milliseconds(), 45'000);
}

TEST_F(HomeChildren, AnOperatorGivesThemUp) {
  leaves_children();
  Client* operators = nullptr;
  in("ChildrenLeft", [&] { later(100, [&] { operators = &resolve("give-up"); }); });
  ASSERT_TRUE(move_away());
  EXPECT_EQ(operators->exit(), MIGRATE_DONE);
  EXPECT_TRUE(doings_.has("keeper ends"));
  EXPECT_EQ(row()->exit_status, 0);
}

TEST_F(HomeChildren, TheyAreNotGivenUpIfTheirPlaceAnswers) {
  answers_ = true;
  leaves_children();
  Client* operators = nullptr;
  in("ChildrenLeft", [&] {
    operators = &resolve("give-up");
    later(100, [this] { children_end(); });
  });
  ASSERT_TRUE(move_away());
  EXPECT_EQ(operators->exit(), MIGRATE_REFUSED);
  EXPECT_NE(operators->error().find("kill pid 4711"), std::string::npos);  // The keeper.
}

TEST_F(HomeChildren, AProcessThatIsGivenUpLeavesNone) {
  Client* operators = nullptr;
  in("Serving", [&] { operators = &resolve("give-up"); });
  ASSERT_TRUE(move_away());
  EXPECT_EQ(phases(), "Serving Ended Over");
  EXPECT_FALSE(doings_.has("make keeper"));
}

TEST_F(HomeChildren, OfADeputyThatWasKilled) {
  in("Serving", [this] {
    call();
    doings_.state = -1;
    later(100, [this] { exits(SIGKILL, true); });
  });
  in("ChildrenLeft", [this] {
    EXPECT_FALSE(doings_.has("make keeper"));
    later(200, [this] {
      EXPECT_EQ(place_.signals, (std::vector<int>{SIGKILL, SIGKILL}));
      children_end();
    });
  });
  ASSERT_TRUE(move_away());
  EXPECT_EQ(phases(), "Serving ChildrenLeft Ended Over");
}

}  // namespace
}  // namespace migrate::home_testing
