// Traces of a handover between Run and certainty: what the destination says on a new connection,
// and how new connections are tried. Also of one that a new worker adopts.
#include "tests/libmigrate/move/handover_world.h"

namespace migrate::handover_testing {
namespace {

constexpr auto kOtherIncarnation = "second";

class DoubtTest : public HandoverTest {};

TEST_F(DoubtTest, ItRuns) {
  doubt();
  reconnect_and_hear(verdict(wire::Verdict::RUNS, ""));
  EXPECT_EQ(handover_->fate(), Fate::kRuns);
  EXPECT_EQ(handover_->phase(), HandoverPhase::kServing);
  EXPECT_TRUE(waits_for().empty());
  EXPECT_EQ(there_.count(Purpose::kUrgent), 2U);
  EXPECT_TRUE(there_.gets_page(memory_.start()));
  there_.take_pushes();
  EXPECT_TRUE(noted_.back().confirmed());
  EXPECT_EQ(there_.sessions.back(), there_.sessions.front());
}

TEST_F(DoubtTest, ItNeverRan) {
  doubt();
  reconnect_and_hear(verdict(wire::Verdict::NEVER_RAN, "first"));
  EXPECT_EQ(handover_->fate(), Fate::kNeverRan);
  EXPECT_NE(handover_->error().message().find("it says so"), std::string::npos);
  EXPECT_EQ(memory_.left, 1);
  EXPECT_EQ(memory_.confirmed_pages, 0U);
  handover_->close();
  EXPECT_TRUE(there_.urgent->is_closed());
  EXPECT_FALSE(there_.hear());
}

TEST_F(DoubtTest, ADestinationThatWasStartedAgainCannotKnow) {
  doubt();
  reconnect_and_hear(verdict(wire::Verdict::NEVER_RAN, kOtherIncarnation));
  EXPECT_EQ(handover_->fate(), Fate::kUnknown);
  EXPECT_EQ(handover_->phase(), HandoverPhase::kCut);
  EXPECT_NE(waits_for().find("migratectl resolve"), std::string::npos);
  EXPECT_FALSE(there_.hear());
  reconnect_and_hear(verdict(wire::Verdict::RUNS, ""));
  EXPECT_EQ(handover_->fate(), Fate::kRuns);
}

TEST_F(DoubtTest, ItEnded) {
  doubt();
  wire::ControlMessage ended = verdict(wire::Verdict::ENDED, "");
  ended.mutable_verdict()->set_wait_status(9);
  reconnect_and_hear(ended);
  EXPECT_EQ(handover_->fate(), Fate::kEnded);
  EXPECT_EQ(handover_->wait_status(), 9);
  EXPECT_EQ(handover_->phase(), HandoverPhase::kOver);
  EXPECT_TRUE(there_.hears(Body::kGoodbye));
  EXPECT_TRUE(noted_.back().done() && !noted_.back().confirmed());
  EXPECT_EQ(memory_.left, 1);
}

TEST_F(DoubtTest, RunningComesLate) {
  doubt();
  reconnect_and_hear(running());
  EXPECT_EQ(handover_->fate(), Fate::kRuns);
  EXPECT_EQ(handover_->phase(), HandoverPhase::kAsked);
  EXPECT_FALSE(waits_for().empty());  // for the verdict, with which pages come
  there_.say(verdict(wire::Verdict::RUNS, ""));
  handover_->handle();
  EXPECT_EQ(handover_->phase(), HandoverPhase::kServing);
  EXPECT_EQ(noted_.size(), 2U);
}

TEST_F(DoubtTest, ProgressTellsThatItRuns) {
  doubt();
  reconnect_and_hear(progress(3));
  EXPECT_EQ(handover_->fate(), Fate::kRuns);
  EXPECT_EQ(report_.progress().owed_pages(), 3U);
}

TEST_F(DoubtTest, AVerdictThatSaysNothingDecidesNothing) {
  doubt();
  for (const int fate : {0, 7}) {
    reconnect_and_hear(verdict(static_cast<wire::Verdict::Fate>(fate), "first"));
    EXPECT_EQ(handover_->fate(), Fate::kUnknown);
    EXPECT_EQ(handover_->phase(), HandoverPhase::kCut);
  }
  EXPECT_EQ(memory_.left, 0);
}

TEST_F(DoubtTest, FailedTellsThatItNeverRan) {
  doubt();
  reconnect_and_hear(failed());
  EXPECT_EQ(handover_->fate(), Fate::kNeverRan);
  EXPECT_EQ(handover_->error().code, ErrorCode::kRefused);
}

TEST_F(DoubtTest, ItsHomeKnowsThatItRuns) {
  doubt();
  handover_->confirm_runs();
  EXPECT_EQ(handover_->fate(), Fate::kRuns);
  EXPECT_EQ(handover_->phase(), HandoverPhase::kCut);
  EXPECT_TRUE(noted_.back().confirmed());
  EXPECT_EQ(there_.bulk->receive(20), "");  // The old connections are of no use.
  reconnect_and_hear(verdict(wire::Verdict::RUNS, ""));
  there_.take_pushes();
}

TEST_F(DoubtTest, WhatRanHasRunWhateverIsSaid) {
  doubt();
  handover_->confirm_runs();
  reconnect_and_hear(verdict(wire::Verdict::NEVER_RAN, "first"));
  EXPECT_EQ(handover_->fate(), Fate::kRuns);
  EXPECT_EQ(handover_->phase(), HandoverPhase::kCut);
  reconnect_and_hear(failed());
  EXPECT_EQ(handover_->fate(), Fate::kRuns);
  EXPECT_EQ(memory_.left, 0);
}

TEST_F(DoubtTest, PagesConfirmedBeforeAreKeptUntilItIsCertain) {
  hand_over("eager");
  there_.take_pushes();
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  ASSERT_FALSE(handover_->run({}));
  for (int look = 0; look < 10; ++look) {
    handover_->handle();
  }
  EXPECT_EQ(memory_.confirmed_pages, 0U);
  handover_->confirm_runs();
  EXPECT_TRUE(handle_until([&] { return memory_.confirmed_pages == StandInMemory::kPages; }));
}

TEST_F(DoubtTest, FaultsAreServedWhileTheControlConnectionIsLost) {
  doubt();
  EXPECT_TRUE(there_.gets_page(memory_.start()));
}

TEST_F(DoubtTest, ConnectionsAreTriedAtGrowingIntervals) {
  doubt();
  there_.unreachable = true;
  attempts_us_.clear();
  const std::int64_t lost_us = now_us_;
  while (now_us_ < lost_us + 20 * kSecond) {
    pass(10 * kMillisecond);
    handover_->handle();
  }
  std::vector<std::int64_t> pauses_ms;
  std::int64_t last_us = lost_us;
  for (const std::int64_t attempt_us : attempts_us_) {
    pauses_ms.push_back((attempt_us - last_us) / kMillisecond);
    last_us = attempt_us;
  }
  EXPECT_EQ(pauses_ms, (std::vector<std::int64_t>{50, 100, 200, 400, 800, 1600, 3200, 5000, 5000}));
  EXPECT_EQ(handover_->outage().since_us(), lost_us);
  EXPECT_NE(waits_for().find("connect to"), std::string::npos);
}

TEST_F(DoubtTest, ANewConnectionIsLostBeforeTheVerdict) {
  doubt();
  reconnect();
  ASSERT_EQ(handover_->phase(), HandoverPhase::kAsked);
  there_.cut_control();
  handover_->handle();
  EXPECT_EQ(handover_->phase(), HandoverPhase::kCut);
  EXPECT_EQ(handover_->fate(), Fate::kUnknown);
}

TEST_F(DoubtTest, ANewConnectionStaysSilent) {
  doubt();
  reconnect();
  pass(5 * kSecond);
  handover_->handle();
  EXPECT_EQ(handover_->phase(), HandoverPhase::kAsked);
  pass(kMillisecond);
  handover_->handle();
  EXPECT_NE(handover_->phase(), HandoverPhase::kServing);
  EXPECT_NE(waits_for().find("five seconds"), std::string::npos);
}

TEST_F(DoubtTest, NonsenseIsNoVerdict) {
  doubt();
  reconnect();
  there_.say_nonsense();
  handover_->handle();
  EXPECT_EQ(handover_->phase(), HandoverPhase::kCut);
  EXPECT_EQ(handover_->fate(), Fate::kUnknown);
}

TEST_F(DoubtTest, WhatIsNoAnswerIsPassedOver) {
  doubt();
  reconnect_and_hear(connected());
  EXPECT_EQ(handover_->phase(), HandoverPhase::kAsked);
  there_.say(verdict(wire::Verdict::NEVER_RAN, "first"));
  handover_->handle();
  EXPECT_EQ(handover_->fate(), Fate::kNeverRan);
}

TEST_F(DoubtTest, ItRunsAndPagesCannotBeConnected) {
  doubt();
  there_.refused = Purpose::kBulk;
  reconnect_and_hear(verdict(wire::Verdict::RUNS, ""));
  EXPECT_EQ(handover_->fate(), Fate::kRuns);
  EXPECT_EQ(handover_->phase(), HandoverPhase::kCut);
  EXPECT_FALSE(waits_for().empty());
  there_.refused.reset();
  reconnect_and_hear(verdict(wire::Verdict::RUNS, ""));
  EXPECT_EQ(handover_->phase(), HandoverPhase::kServing);
}

TEST_F(DoubtTest, ItRanAndOwesNothingAnyMore) {
  doubt();
  wire::ControlMessage runs = verdict(wire::Verdict::RUNS, "");
  runs.mutable_verdict()->mutable_progress()->set_done(true);
  reconnect_and_hear(runs);
  EXPECT_EQ(handover_->phase(), HandoverPhase::kOver);
  EXPECT_EQ(there_.count(Purpose::kUrgent), 1U);
  EXPECT_TRUE(there_.hears(Body::kGoodbye));
  EXPECT_TRUE(noted_.back().confirmed() && noted_.back().done());
}

class AskTest : public HandoverTest {};

TEST_F(AskTest, OnceMoreItIsAnswered) {
  doubt();
  there_.says = {verdict(wire::Verdict::NEVER_RAN, "first")};
  handover_->ask_once_more();
  EXPECT_EQ(handover_->fate(), Fate::kNeverRan);
}

TEST_F(AskTest, OnceMoreNothingIsHeard) {
  doubt();
  tick_us_ = 1'500 * kMillisecond;
  handover_->ask_once_more();
  EXPECT_EQ(handover_->fate(), Fate::kUnknown);
  EXPECT_EQ(there_.count(Purpose::kResume), 1U);
}

TEST_F(AskTest, OnceMoreNobodyIsReached) {
  doubt();
  there_.unreachable = true;
  handover_->ask_once_more();
  EXPECT_EQ(handover_->fate(), Fate::kUnknown);
  EXPECT_EQ(handover_->phase(), HandoverPhase::kCut);
}

TEST_F(AskTest, NobodyIsAskedWhoHasSaidAll) {
  doubt();
  reconnect_and_hear(verdict(wire::Verdict::ENDED, ""));
  handover_->ask_once_more();
  EXPECT_EQ(there_.count(Purpose::kResume), 1U);
  EXPECT_EQ(handover_->phase(), HandoverPhase::kOver);
}

class VerdictTest : public HandoverTest {
 protected:
  Result<wire::Verdict> ask(const std::vector<wire::ControlMessage>& says) {
    make();
    there_.says = says;
    SessionId session{};
    session.fill(std::byte{5});
    auto answer = handover_->ask_verdict(session, "first");
    EXPECT_EQ(there_.sessions.back(), session);
    EXPECT_EQ(there_.purposes.back(), Purpose::kResume);
    return answer;
  }
};

TEST_F(VerdictTest, IsGiven) {
  const auto ended = ask({verdict(wire::Verdict::ENDED, "")});
  ASSERT_TRUE(ended);
  EXPECT_EQ(ended->reason(), "it says so");
  const auto never = ask({verdict(wire::Verdict::NEVER_RAN, "first")});
  ASSERT_TRUE(never);
  EXPECT_EQ(never->fate(), wire::Verdict::NEVER_RAN);
  EXPECT_EQ(handover_->phase(), HandoverPhase::kOffering);
}

TEST_F(VerdictTest, IsNotTheDestinationsToGive) {
  EXPECT_EQ(ask({verdict(wire::Verdict::NEVER_RAN, kOtherIncarnation)}).error().code,
            ErrorCode::kPeerLost);
}

TEST_F(VerdictTest, IsNotGiven) {
  EXPECT_EQ(ask({}).error().code, ErrorCode::kRetry);
  EXPECT_EQ(ask({running()}).error().code, ErrorCode::kCorrupt);
  there_.unreachable = true;
  EXPECT_EQ(ask({}).error().code, ErrorCode::kPeerLost);
}

class AdoptionTest : public HandoverTest {};

TEST_F(AdoptionTest, UnconfirmedIsInDoubt) {
  adopt(false, false, Original::kHere);
  EXPECT_TRUE(handover_->run_sent());
  EXPECT_EQ(handover_->fate(), Fate::kUnknown);
  EXPECT_EQ(waits_for(), "tcp://there:1: the worker here was started again");
  EXPECT_EQ(handover_->outage().since_us(), now_us_);
  handover_->handle();
  EXPECT_TRUE(there_.purposes.empty());  // The caller shows first that it waits.
  pass(50 * kMillisecond);
  handover_->handle();
  EXPECT_EQ(there_.purposes, std::vector{Purpose::kResume});
  EXPECT_EQ(there_.sessions[0], handover_->session());
  EXPECT_EQ(handover_->session()[15], std::byte{'s'});
  there_.say(verdict(wire::Verdict::NEVER_RAN, "first"));
  handover_->handle();
  EXPECT_EQ(handover_->fate(), Fate::kNeverRan);
}

TEST_F(AdoptionTest, UnconfirmedRuns) {
  adopt(false, false, Original::kHere);
  reconnect_and_hear(verdict(wire::Verdict::RUNS, ""));
  EXPECT_EQ(handover_->phase(), HandoverPhase::kServing);
  EXPECT_EQ(memory_.feeds, 1);
  EXPECT_TRUE(there_.gets_page(memory_.start()));
  expect_pushes();
}

TEST_F(AdoptionTest, ConfirmedIsCertain) {
  adopt(true, false, Original::kHere);
  EXPECT_EQ(handover_->fate(), Fate::kRuns);
  EXPECT_FALSE(waits_for().empty());
  reconnect_and_hear(verdict(wire::Verdict::NEVER_RAN, "first"));
  EXPECT_EQ(handover_->fate(), Fate::kRuns);
  reconnect_and_hear(verdict(wire::Verdict::RUNS, ""));
  there_.take_pushes();
  EXPECT_TRUE(noted_.empty());  // It was noted already.
}

TEST_F(AdoptionTest, TheMemoryCannotBeRead) {
  adopt(true, false, Original::kHere);
  memory_.gone = true;
  reconnect_and_hear(verdict(wire::Verdict::RUNS, ""));
  EXPECT_EQ(handover_->phase(), HandoverPhase::kCut);
  EXPECT_NE(waits_for().find("read the memory"), std::string::npos);
}

TEST_F(AdoptionTest, WithoutTheMemoryItOnlyListens) {
  adopt(true, false, Original::kGone);
  reconnect_and_hear(verdict(wire::Verdict::RUNS, ""));
  EXPECT_TRUE(waits_for().empty());
  EXPECT_EQ(memory_.feeds, 0);
  EXPECT_EQ(there_.count(Purpose::kUrgent), 0U);
  wire::ControlMessage ended = verdict(wire::Verdict::ENDED, "");
  there_.say(ended);
  handover_->handle();
  EXPECT_EQ(handover_->fate(), Fate::kEnded);
  EXPECT_EQ(handover_->phase(), HandoverPhase::kOver);
}

TEST_F(AdoptionTest, DoneIsDone) {
  adopt(true, true, Original::kHere);
  EXPECT_TRUE(handover_->done());
  EXPECT_TRUE(report_.done());
  EXPECT_TRUE(waits_for().empty());
  reconnect();
  EXPECT_TRUE(there_.purposes.empty());
}

TEST_F(AdoptionTest, ASessionThatWasCutShortIsFilledUp) {
  make();
  wire::Outgoing outgoing;
  outgoing.set_session("abc");
  handover_->adopt(outgoing, Original::kHere);
  EXPECT_EQ(handover_->session()[0], std::byte{'a'});
  EXPECT_EQ(handover_->session()[3], std::byte{0});
}

}  // namespace
}  // namespace migrate::handover_testing
