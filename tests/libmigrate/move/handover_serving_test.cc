// Traces of a handover while the process runs there and pages are owed to it, and of its end.
#include "tests/libmigrate/move/handover_world.h"

namespace migrate::handover_testing {
namespace {

class ServingTest : public HandoverTest {
 protected:
  /// The destination has lost something, the source notices, and all goes on over new connections.
  void comes_back() {
    ASSERT_TRUE(handle_until([&] { return handover_->phase() == HandoverPhase::kCut; }));
    EXPECT_FALSE(waits_for().empty());
    EXPECT_EQ(handover_->fate(), Fate::kRuns);
    reconnect_and_hear(verdict(wire::Verdict::RUNS, ""));
    EXPECT_EQ(handover_->phase(), HandoverPhase::kServing);
    EXPECT_TRUE(waits_for().empty());
    EXPECT_TRUE(there_.gets_page(memory_.start()));
  }
  void goes_on() {
    comes_back();
    expect_pushes();
  }
};

// Where a move names no limit, it is that of the host which has the process: also of one that was
// passed on by the home, and after a new worker took over.
TEST_F(ServingTest, PushesAsItsOwnHostAllows) {
  context_.push_bytes_per_second = 4096;
  run();
  EXPECT_EQ(memory_.fed_with.push_bytes_per_second, 4096U);
}

TEST_F(ServingTest, PushesAsTheMoveAsks) {
  context_.push_bytes_per_second = 4096;
  make("lazy", {.bytes_per_second = 0});
  there_.says = {offer_reply(), connected()};
  ASSERT_TRUE(make_offer());
  ASSERT_TRUE(handover_->connect_pages());
  ASSERT_TRUE(send_process());
  EXPECT_EQ(memory_.fed_with.push_bytes_per_second, 0U);  // As fast as can be.
}

TEST_F(ServingTest, PingsEverySecond) {
  run();
  int pings = 0;
  for (int tenth = 0; tenth < 45; ++tenth) {
    pass(100 * kMillisecond);
    handover_->handle();
    const auto heard = there_.control->try_receive();
    ASSERT_TRUE(heard);
    pings += heard->has_value() && (*heard)->has_ping() ? 1 : 0;
  }
  EXPECT_GE(pings, 4);
  EXPECT_LE(pings, 5);
}

TEST_F(ServingTest, HearsNothingForFiveSeconds) {
  run();
  pass(5 * kSecond);
  handover_->handle();
  EXPECT_EQ(handover_->phase(), HandoverPhase::kServing);
  pass(kMillisecond);
  handover_->handle();
  EXPECT_EQ(handover_->phase(), HandoverPhase::kCut);
  EXPECT_NE(waits_for().find("five seconds"), std::string::npos);
  goes_on();
}

TEST_F(ServingTest, WhateverIsHeardCounts) {
  run();
  for (int time = 0; time < 4; ++time) {
    pass(4 * kSecond);
    there_.say(connected());
    handover_->handle();
  }
  EXPECT_EQ(handover_->phase(), HandoverPhase::kServing);
  EXPECT_EQ(there_.count(Purpose::kResume), 0U);
}

TEST_F(ServingTest, LosesTheControlConnection) {
  run();
  there_.cut_control();
  goes_on();
}

TEST_F(ServingTest, HearsNonsense) {
  run();
  there_.say_nonsense();
  goes_on();
}

TEST_F(ServingTest, LosesTheUrgentConnection) {
  run();
  there_.urgent->cut();
  goes_on();
  EXPECT_EQ(there_.count(Purpose::kUrgent), 2U);
}

TEST_F(ServingTest, LosesTheBulkConnection) {
  run();
  there_.bulk->cut();
  goes_on();
}

TEST_F(ServingTest, LosesAllConnections) {
  run();
  there_.urgent->cut();
  there_.bulk->cut();
  there_.cut_control();
  there_.unreachable = true;
  reconnect();
  reconnect();
  EXPECT_EQ(handover_->phase(), HandoverPhase::kCut);
  there_.unreachable = false;
  goes_on();
}

TEST_F(ServingTest, LosesConnectionsAgainAndAgain) {
  run();
  for (int time = 0; time < 3; ++time) {
    there_.cut_control();
    comes_back();
  }
  there_.cut_control();
  goes_on();
  EXPECT_EQ(noted_.size(), 2U);
  EXPECT_EQ(memory_.feeds, 1);
}

TEST_F(ServingTest, WhatIsConfirmedWhileTheControlConnectionIsLostIsHandedOn) {
  run();
  there_.unreachable = true;
  there_.cut_control();
  ASSERT_TRUE(handle_until([&] { return handover_->phase() == HandoverPhase::kCut; }));
  expect_pushes();
}

TEST_F(ServingTest, InModeDemandNothingIsPushedUnlessAskedFor) {
  run("demand");
  const std::string presence = there_.bulk->receive(StandInDestination::kLookMs);
  EXPECT_EQ(message_type(std::as_bytes(std::span(presence))).value(), MessageType::kPresence);
  EXPECT_EQ(there_.bulk->receive(30), "");
  wire::ControlMessage all;
  all.mutable_send_all();
  there_.say(all);
  handover_->handle();
  there_.take_pushes();
}

TEST_F(ServingTest, ProgressIsReported) {
  run();
  there_.say(progress(3));
  handover_->handle();
  EXPECT_EQ(report_.progress().owed_pages(), 3U);
  EXPECT_EQ(handover_->phase(), HandoverPhase::kServing);
}

TEST_F(ServingTest, FailedComesTooLate) {
  run();
  there_.say(failed());
  handover_->handle();
  EXPECT_EQ(handover_->fate(), Fate::kRuns);
  EXPECT_EQ(handover_->phase(), HandoverPhase::kServing);
}

TEST_F(ServingTest, ItEndsWhileConnectionsAreLost) {
  run();
  there_.cut_control();
  reconnect();
  reconnect_and_hear(verdict(wire::Verdict::ENDED, ""));
  EXPECT_EQ(handover_->fate(), Fate::kEnded);
  EXPECT_EQ(handover_->phase(), HandoverPhase::kOver);
}

TEST_F(ServingTest, WithTheMemoryGoneItListensOn) {
  run();
  handover_->stop_serving();
  EXPECT_TRUE(there_.urgent->is_closed());
  pass(kSecond);
  handover_->handle();
  EXPECT_EQ(handover_->phase(), HandoverPhase::kServing);  // Broken pages are no news.
  there_.cut_control();
  handover_->handle();
  reconnect_and_hear(verdict(wire::Verdict::RUNS, ""));
  EXPECT_TRUE(waits_for().empty());
  EXPECT_EQ(there_.count(Purpose::kUrgent), 1U);
  there_.say(progress(0, true));
  handover_->handle();
  EXPECT_EQ(handover_->phase(), HandoverPhase::kOver);
}

TEST_F(ServingTest, AnotherProcessKeepsTheMemory) {
  run();
  handover_->follow(::getpid());
  EXPECT_TRUE(there_.gets_page(memory_.start()));
}

TEST_F(ServingTest, IsClosed) {
  run();
  handover_->close();
  EXPECT_TRUE(there_.urgent->is_closed());
  EXPECT_EQ(handover_->poll_fd(), -1);
  EXPECT_FALSE(there_.hear());
}

class EndTest : public HandoverTest {
 protected:
  void finish() {
    run();
    there_.take_pushes();
    pass(70 * kMillisecond);
    there_.say(progress(0, true));
    handover_->handle();
    ASSERT_EQ(handover_->phase(), HandoverPhase::kOver);
  }
};

TEST_F(EndTest, SaysGoodbyeAndNotesThatNothingIsOwed) {
  finish();
  EXPECT_TRUE(there_.hears(Body::kGoodbye));
  EXPECT_TRUE(noted_.back().confirmed() && noted_.back().done());
  EXPECT_TRUE(report_.done());
  EXPECT_EQ(memory_.left, 1);
  EXPECT_TRUE(there_.urgent->is_closed());
  nlohmann::json result;
  report_.add_to(result, 0);
  EXPECT_EQ(result["owed_nothing_after_us"], 70 * kMillisecond);
  EXPECT_GT(result["wire_bytes"], StandInMemory::kPages * kPageBytes);
}

TEST_F(EndTest, IsDoneWhenTheDestinationHasHungUp) {
  finish();
  handover_->handle();
  EXPECT_FALSE(handover_->done());
  EXPECT_GE(handover_->poll_fd(), 0);
  there_.say(progress(0, true));  // It may say it again.
  handover_->handle();
  EXPECT_FALSE(handover_->done());
  there_.cut_control();
  handover_->handle();
  EXPECT_TRUE(handover_->done());
  EXPECT_EQ(noted_.size(), 3U);
}

TEST_F(EndTest, IsDoneWhenTheDestinationDoesNotHangUp) {
  finish();
  pass(2 * kSecond);
  handover_->handle();
  EXPECT_FALSE(handover_->done());
  pass(kMillisecond);
  handover_->handle();
  EXPECT_TRUE(handover_->done());
  EXPECT_EQ(handover_->poll_fd(), -1);
}

TEST_F(EndTest, NothingIsTriedAfterwards) {
  finish();
  there_.cut_control();
  const std::size_t connections = there_.purposes.size();
  reconnect();
  reconnect();
  EXPECT_EQ(there_.purposes.size(), connections);
  EXPECT_TRUE(waits_for().empty());
}

TEST_F(EndTest, ADeadlineIsMissedOnce) {
  run();
  there_.say(progress(3));
  handover_->handle();
  there_.say(progress(0, true));
  handover_->handle();
  EXPECT_FALSE(report_.misses_deadline());
  EXPECT_TRUE(report_.done());
}

}  // namespace
}  // namespace migrate::handover_testing
