// A worker at home dies, wherever it is, and another one takes over.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>

#include "tests/libmigrate/home/home_world.h"

namespace migrate::home_testing {
namespace {

/// What a new worker does by what the record says and what it finds.
class HomeTakenOverAs : public testing::Test {
 protected:
  static constexpr std::array<HomePhase, 8> kPhases{
      HomePhase::kOffered, HomePhase::kInDoubt, HomePhase::kServing,      HomePhase::kIndependent,
      HomePhase::kStayed,  HomePhase::kEnding,  HomePhase::kChildrenLeft, HomePhase::kEnded};

  static wire::HomeSession never_left() { return {}; }
  static wire::HomeSession unconfirmed() {
    wire::HomeSession noted;
    noted.mutable_outgoing()->set_destination("b");
    return noted;
  }
  static wire::HomeSession away() {
    wire::HomeSession noted = unconfirmed();
    noted.mutable_outgoing()->set_confirmed(true);
    noted.mutable_relay();
    return noted;
  }
  static wire::HomeSession kept() {
    wire::HomeSession noted = away();
    noted.mutable_keeper()->set_pid(1);
    return noted;
  }
};

TEST_F(HomeTakenOverAs, WhatIsParkedIsServedInEveryPhase) {
  for (const HomePhase phase : kPhases) {
    if (phase == HomePhase::kStayed) {
      continue;  // Of what was brought back nothing is parked.
    }
    for (const wire::HomeSession& noted : {never_left(), unconfirmed(), away(), kept()}) {
      EXPECT_EQ(taken_over_as(phase, noted, Found::kParked), TakenOverAs::kDeputy)
          << to_string(phase);
    }
  }
}

TEST_F(HomeTakenOverAs, WhatIsGoneHasEndedIfThatIsNoted) {
  for (const HomePhase phase : {HomePhase::kEnding, HomePhase::kChildrenLeft, HomePhase::kEnded}) {
    for (const wire::HomeSession& noted : {never_left(), unconfirmed(), away()}) {
      EXPECT_EQ(taken_over_as(phase, noted, Found::kGone), TakenOverAs::kEnded) << to_string(phase);
    }
  }
}

TEST_F(HomeTakenOverAs, WhatIsGoneWasKilledIfNoEndIsNoted) {
  for (const HomePhase phase :
       {HomePhase::kOffered, HomePhase::kInDoubt, HomePhase::kServing, HomePhase::kIndependent}) {
    EXPECT_EQ(taken_over_as(phase, never_left(), Found::kGone), TakenOverAs::kStayed);
    EXPECT_EQ(taken_over_as(phase, unconfirmed(), Found::kGone), TakenOverAs::kAskAbout);
    EXPECT_EQ(taken_over_as(phase, away(), Found::kGone), TakenOverAs::kKilled);
  }
  wire::HomeSession without_streams = away();
  without_streams.clear_relay();
  EXPECT_EQ(taken_over_as(HomePhase::kServing, without_streams, Found::kGone),
            TakenOverAs::kAskAbout);
}

TEST_F(HomeTakenOverAs, WhatRunsOnWasNeverMoved) {
  for (const HomePhase phase : {HomePhase::kOffered, HomePhase::kInDoubt, HomePhase::kStayed}) {
    EXPECT_EQ(taken_over_as(phase, never_left(), Found::kRunsOn), TakenOverAs::kStayed);
    EXPECT_EQ(taken_over_as(phase, unconfirmed(), Found::kRunsOn), TakenOverAs::kStayed);
  }
  // Its pid alone is there; the destination has said that the process runs there.
  EXPECT_EQ(taken_over_as(HomePhase::kServing, away(), Found::kRunsOn), TakenOverAs::kKilled);
}

TEST_F(HomeTakenOverAs, WhatStayedIsNotAskedAboutWhenItHasEnded) {
  for (const wire::HomeSession& noted : {never_left(), unconfirmed()}) {
    EXPECT_EQ(taken_over_as(HomePhase::kStayed, noted, Found::kGone), TakenOverAs::kStayed);
  }
}

TEST_F(HomeTakenOverAs, AKeeperThatIsNotedIsLookedForInEveryPhase) {
  for (const HomePhase phase : kPhases) {
    EXPECT_EQ(taken_over_as(phase, kept(), Found::kGone), TakenOverAs::kKeeper) << to_string(phase);
  }
}

class HomeTakeover : public HomeWorld {
 protected:
  static Result<wire::Verdict> verdict(wire::Verdict::Fate fate, int wait_status = 0) {
    wire::Verdict verdict;
    verdict.set_fate(fate);
    verdict.set_wait_status(wait_status);
    return verdict;
  }
  /// The first worker dies in this phase, after so long.
  void dies_in(const std::string& phase, int milliseconds = 600) {
    in(phase, [this, milliseconds] { later(milliseconds, [] { die(); }); });
  }
  /// It dies while the move is in doubt, and the parked process is killed before another comes.
  void dies_killed() {
    doings_.outcome = MoveOutcome::kInDoubt;
    dies_in("InDoubt");
    ASSERT_FALSE(move_away());
    doings_.found = Found::kGone;
  }
};

TEST_F(HomeTakeover, OfAProcessThatRunsOn) {
  doings_.outcome = MoveOutcome::kFailed;
  doings_.die_after = "attempt";
  ASSERT_FALSE(move_away());
  EXPECT_TRUE(has_file());
  doings_.found = Found::kRunsOn;
  ASSERT_TRUE(take_over());
  EXPECT_EQ(record_->phase(), HomePhase::kStayed);
  EXPECT_EQ(row()->state, ProcessState::kFailed);
  EXPECT_EQ(phases(), "Over");
  EXPECT_FALSE(has_file());
}

// It is stopped, and nobody else may be left to end it.
TEST_F(HomeTakeover, OfOneThatWasToBeginElsewhere) {
  for (const bool starts : {true, false}) {
    request_.starts = starts;
    request_.pid = ::fork();
    if (request_.pid == 0) {
      for (;;) {
        ::pause();
      }
    }
    doings_.outcome = MoveOutcome::kFailed;
    doings_.die_after = "attempt";
    ASSERT_FALSE(move_away());
    doings_.found = Found::kRunsOn;
    ASSERT_TRUE(take_over());
    EXPECT_EQ(record_->phase(), HomePhase::kStayed);
    ::kill(request_.pid, SIGTERM);
    int status = 0;
    EXPECT_EQ(::waitpid(request_.pid, &status, 0), request_.pid);
    EXPECT_EQ(WTERMSIG(status), starts ? SIGKILL : SIGTERM);
    start_anew();
  }
}

TEST_F(HomeTakeover, AfterItWasBroughtBack) {
  doings_.outcome = MoveOutcome::kInDoubt;
  doings_.fate = Fate::kNeverRan;
  dies_in("Over", 0);
  ASSERT_FALSE(move_away());
  doings_.found = Found::kGone;  // It has ended since.
  ASSERT_TRUE(take_over());
  EXPECT_EQ(phases(), "Over");
  EXPECT_FALSE(doings_.has("ask verdict"));
  EXPECT_FALSE(has_file());
}

TEST_F(HomeTakeover, InDoubtGoesOnInDoubt) {
  doings_.outcome = MoveOutcome::kInDoubt;
  dies_in("InDoubt");
  ASSERT_FALSE(move_away());
  in("InDoubt", [this] { later(100, [this] { doings_.fate = Fate::kRuns; }); });
  in("Serving", [this] { exits(2 << 8); });
  ASSERT_TRUE(take_over());
  EXPECT_EQ(phases(), "InDoubt Serving Ended Over");
  EXPECT_EQ(row()->exit_status, 2 << 8);
}

TEST_F(HomeTakeover, InDoubtAndItNeverRan) {
  doings_.outcome = MoveOutcome::kInDoubt;
  dies_in("InDoubt");
  ASSERT_FALSE(move_away());
  in("InDoubt", [this] { doings_.fate = Fate::kNeverRan; });
  ASSERT_TRUE(take_over());
  EXPECT_TRUE(doings_.has("resume here"));
  EXPECT_EQ(record_->phase(), HomePhase::kStayed);
  EXPECT_FALSE(has_file());
}

TEST_F(HomeTakeover, InDoubtAndGivenUp) {
  doings_.outcome = MoveOutcome::kInDoubt;
  dies_in("InDoubt");
  ASSERT_FALSE(move_away());
  Client* operators = nullptr;
  in("InDoubt", [&] { operators = &resolve("give-up"); });
  ASSERT_TRUE(take_over());
  EXPECT_EQ(operators->exit(), MIGRATE_DONE);
  EXPECT_EQ(row()->exit_status, SIGKILL);
}

TEST_F(HomeTakeover, BeforeAndAfterItSettled) {
  for (const bool before : {true, false}) {
    SCOPED_TRACE(before);
    (before ? doings_.die_before : doings_.die_after) = "settle";
    doings_.found = Found::kParked;
    doings_.state = 0;
    place_ = Place();
    ASSERT_FALSE(move_away());
    in("Serving", [this] { exits(0); });
    ASSERT_TRUE(take_over());
    EXPECT_EQ(phases(), "Serving Ended Over");
    EXPECT_TRUE(doings_.has("end as 0 in Ending"));
    record_.reset();
  }
}

TEST_F(HomeTakeover, WhileItServes) {
  const UniqueFd home_end = add_stream(4);
  in("Serving", [this] { call(); });
  dies_in("Serving");
  ASSERT_FALSE(move_away());
  EXPECT_TRUE(has_file());
  in("Serving", [this] {
    later(1000, [this] {
      EXPECT_TRUE(place_.relay->connected());  // It has called the new one.
      exits(0);
    });
  });
  ASSERT_TRUE(take_over());
  EXPECT_EQ(phases(), "Serving Ended Over");
  EXPECT_EQ(row()->exit_status, 0);
  EXPECT_FALSE(has_file());
}

TEST_F(HomeTakeover, WhenNothingIsOwed) {
  doings_.done = true;
  in("Serving", [this] { call(); });
  dies_in("Serving", 3000);
  ASSERT_FALSE(move_away());
  doings_.log.clear();
  in("Serving", [this] {
    EXPECT_EQ(record_->phase(), HomePhase::kIndependent);
    exits(0);
  });
  ASSERT_TRUE(take_over());
  EXPECT_FALSE(doings_.has("free all"));  // The worker before has done so.
}

TEST_F(HomeTakeover, TheDeputyWasKilledMeanwhile) {
  in("Serving", [this] { call(); });
  dies_in("Serving");
  ASSERT_FALSE(move_away());
  doings_.found = Found::kGone;
  in("Serving", [this] {
    later(1000, [this] {
      EXPECT_EQ(place_.signals, std::vector<int>{SIGKILL});
      exits(SIGKILL);
    });
  });
  ASSERT_TRUE(take_over());
  EXPECT_EQ(phases(), "Serving Ended Over");
  EXPECT_EQ(row()->exit_status, SIGKILL);
}

TEST_F(HomeTakeover, ItsEndWasNotedAndTheDeputyLives) {
  doings_.die_before = "end as 3 in Ending";
  in("Serving", [this] { exits(3); });
  ASSERT_FALSE(move_away());
  ASSERT_TRUE(take_over());
  EXPECT_EQ(phases(), "Serving Ended Over");
  EXPECT_TRUE(doings_.has("end as 3 in Ending"));
  EXPECT_EQ(row()->exit_status, 3);
}

TEST_F(HomeTakeover, ItsEndWasNotedAndTheDeputyHasEnded) {
  doings_.die_after = "end as 3 in Ending";
  in("Serving", [this] { exits(3); });
  ASSERT_FALSE(move_away());
  ASSERT_TRUE(take_over());
  EXPECT_EQ(phases(), "Over");
  EXPECT_EQ(row()->exit_status, 3);
  EXPECT_EQ(row()->state, ProcessState::kExited);
  EXPECT_FALSE(has_file());
}

TEST_F(HomeTakeover, AKeeperOfWhichNobodyTookNote) {
  doings_.die_after = "make keeper";
  in("Serving", [this] { exits(0, true); });
  ASSERT_FALSE(move_away());
  in("ChildrenLeft", [this] { later(900, [this] { children_end(); }); });
  ASSERT_TRUE(take_over());
  EXPECT_EQ(phases(), "Serving ChildrenLeft Ended Over");
  EXPECT_TRUE(doings_.has("end as 0 in Ending, keeper noted"));
}

TEST_F(HomeTakeover, AKeeperIsNotedAndTheDeputyLives) {
  doings_.die_before = "end as 0 in Ending, keeper noted";
  in("Serving", [this] { exits(0, true); });
  ASSERT_FALSE(move_away());
  in("ChildrenLeft", [this] { later(900, [this] { children_end(); }); });
  ASSERT_TRUE(take_over());
  EXPECT_EQ(phases(), "Serving ChildrenLeft Ended Over");
  EXPECT_TRUE(doings_.has("end as 0 in Ending, keeper noted"));  // A new one.
}

TEST_F(HomeTakeover, AKeeperServesChildren) {
  doings_.die_after = "end as 5 in Ending, keeper noted";
  in("Serving", [this] { exits(5, true); });
  ASSERT_FALSE(move_away());
  in("ChildrenLeft", [this] {
    EXPECT_EQ(row()->state, ProcessState::kChildrenLeft);
    later(3000, [this] { children_end(); });
  });
  ASSERT_TRUE(take_over());
  EXPECT_EQ(phases(), "ChildrenLeft Ended Over");
  EXPECT_TRUE(doings_.has("keeper ends"));
  EXPECT_EQ(row()->exit_status, 5);
}

TEST_F(HomeTakeover, AKeeperWasKilledMeanwhile) {
  in("Serving", [this] { exits(0, true); });
  dies_in("ChildrenLeft");
  ASSERT_FALSE(move_away());
  doings_.keeper_state = -1;
  in("ChildrenLeft", [this] {
    later(1000, [this] {
      EXPECT_EQ(place_.signals, std::vector<int>{SIGKILL});
      children_end();
    });
  });
  ASSERT_TRUE(take_over());
  EXPECT_EQ(phases(), "ChildrenLeft Ended Over");
  EXPECT_FALSE(doings_.has("keeper ends"));
}

TEST_F(HomeTakeover, AKeeperIsNeededNoMore) {
  in("Serving", [this] { exits(0, true); });
  dies_in("ChildrenLeft");
  ASSERT_FALSE(move_away());
  doings_.done = true;
  ASSERT_TRUE(take_over());
  EXPECT_EQ(phases(), "Ended Over");
  EXPECT_TRUE(doings_.has("keeper ends"));
}

TEST_F(HomeTakeover, AfterTheEnd) {
  in("Serving", [this] { exits(6); });
  dies_in("Ended", 100);
  ASSERT_FALSE(move_away());
  ASSERT_TRUE(take_over());
  EXPECT_EQ(phases(), "Over");
  EXPECT_EQ(row()->exit_status, 6);
}

TEST_F(HomeTakeover, NobodyCanSayWhatIsThere) {
  dies_in("Serving");
  ASSERT_FALSE(move_away());
  doings_.finds = false;
  EXPECT_FALSE(take_over());
  EXPECT_TRUE(has_file());
  record_.reset();
  doings_.finds = true;
  in("Serving", [this] { exits(0); });
  ASSERT_TRUE(take_over());
}

TEST_F(HomeTakeover, KilledInDoubtItEndedThere) {
  dies_killed();
  doings_.verdicts.push_back(fail(make_error(ErrorCode::kPeerLost, "ask")));
  doings_.verdicts.push_back(verdict(wire::Verdict::ENDED, 4 << 8));
  ASSERT_TRUE(take_over());
  EXPECT_EQ(phases(), "Killed Over");
  EXPECT_EQ(row()->exit_status, 4 << 8);
  EXPECT_FALSE(has_file());
}

TEST_F(HomeTakeover, KilledInDoubtItNeverRan) {
  dies_killed();
  doings_.verdicts.push_back(verdict(wire::Verdict::NEVER_RAN));
  ASSERT_TRUE(take_over());
  EXPECT_EQ(row()->exit_status, SIGKILL);
}

TEST_F(HomeTakeover, KilledInDoubtItIsEndedThere) {
  dies_killed();
  answers_ = true;
  doings_.verdicts.push_back(verdict(wire::Verdict::RUNS));
  ASSERT_TRUE(take_over());
  ASSERT_EQ(asked_.size(), 1U);
  EXPECT_EQ(asked_.front()["session"], to_hex(test_session()));
  EXPECT_EQ(row()->exit_status, SIGKILL);
}

TEST_F(HomeTakeover, KilledInDoubtItIsJustLeavingThere) {
  dies_killed();
  answers_ = true;
  answer_ = {{"event", "result"}, {"exit", MIGRATE_FAILED}};
  doings_.verdicts.push_back(verdict(wire::Verdict::RUNS));
  doings_.verdicts.push_back(verdict(wire::Verdict::ENDED, 1));
  ASSERT_TRUE(take_over());
  EXPECT_EQ(asked_.size(), 1U);
  EXPECT_EQ(row()->exit_status, 1);
}

TEST_F(HomeTakeover, KilledInDoubtAndGivenUp) {
  dies_killed();
  Client* resumes = nullptr;
  Client* gives_up = nullptr;
  in("Killed", [&] {
    resumes = &resolve("resume-source");
    later(5000, [&] {
      EXPECT_NE(row()->waits_for.find("killed here"), std::string::npos);
      gives_up = &resolve("give-up");
    });
  });
  ASSERT_TRUE(take_over());
  EXPECT_EQ(resumes->exit(), MIGRATE_REFUSED);
  EXPECT_EQ(gives_up->exit(), MIGRATE_DONE);
  EXPECT_EQ(row()->exit_status, SIGKILL);
}

}  // namespace
}  // namespace migrate::home_testing
