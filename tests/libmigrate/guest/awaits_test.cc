// What an arrival waits for before its process runs here: each test is one trace of what its source
// and others do meanwhile.
#include "libmigrate/guest/awaits.h"

#include <fcntl.h>

#include "tests/libmigrate/guest/guest_fixture.h"

namespace migrate {
namespace {

class AwaitsTest : public testing::Test {
 protected:
  AwaitsTest() {
    auto ends = make_memory_channels().value();
    control_ = std::make_unique<ControlChannel>(std::move(ends.first), "source");
    source_ = std::make_unique<ControlChannel>(std::move(ends.second), "guest");
  }

  static Letter connection(Purpose purpose) {
    Letter letter;
    letter.preamble = Preamble{.purpose = purpose, .session = {}};
    letter.channel = make_memory_channels().value().first;
    return letter;
  }
  AwaitConnections connections() {
    return AwaitConnections(*control_, pages_, early_, [this] { return now_us_; });
  }
  AwaitRun run() {
    return AwaitRun(*control_, pages_, early_, "subject", [this] { return now_us_; });
  }
  void say(const std::function<void(wire::ControlMessage&)>& fill) {
    wire::ControlMessage message;
    fill(message);
    ASSERT_TRUE(source_->send(message));
  }

  std::int64_t now_us_ = 1'000'000;
  StandInCell cell_{::getpid()};
  GuestPages pages_{cell_, "subject", SessionId()};
  EarlyLetters early_;
  std::unique_ptr<ControlChannel> control_;
  std::unique_ptr<ControlChannel> source_;
};

TEST_F(AwaitsTest, BothConnectionsAreEnough) {
  AwaitConnections awaits = connections();
  EXPECT_TRUE(awaits.step());
  awaits.on_letter(connection(Purpose::kBulk));
  EXPECT_TRUE(awaits.step());
  awaits.on_letter(connection(Purpose::kUrgent));
  EXPECT_FALSE(awaits.step());
  EXPECT_TRUE(awaits.outcome());
}

TEST_F(AwaitsTest, ConnectionsThatDoNotCome) {
  AwaitConnections awaits = connections();
  now_us_ += 9'999'000;
  EXPECT_TRUE(awaits.step());
  std::vector<pollfd> polled;
  EXPECT_LE(awaits.collect_poll_fds(polled), 2);  // Milliseconds that are left.
  now_us_ += 2'000;
  EXPECT_FALSE(awaits.step());
  EXPECT_EQ(awaits.outcome().error().code, ErrorCode::kRetry);
}

TEST_F(AwaitsTest, ASourceThatGivesUpBeforeTheyCome) {
  AwaitConnections awaits = connections();
  source_.reset();
  EXPECT_FALSE(awaits.step());
  EXPECT_EQ(awaits.outcome().error().code, ErrorCode::kPeerLost);
}

TEST_F(AwaitsTest, ASourceThatSaysSomethingInstead) {
  AwaitConnections awaits = connections();
  say([](wire::ControlMessage& message) { message.mutable_run(); });
  EXPECT_FALSE(awaits.step());
  EXPECT_EQ(awaits.outcome().error().code, ErrorCode::kCorrupt);
}

TEST_F(AwaitsTest, ItCannotBeResumedBeforeItRan) {
  AwaitConnections awaits = connections();
  awaits.on_letter(connection(Purpose::kResume));
  awaits.on_letter(connection(Purpose::kHome));
  EXPECT_TRUE(awaits.step());
}

TEST_F(AwaitsTest, EveryKindOfLetterInEachOfThem) {
  AwaitConnections connections = this->connections();
  AwaitFinal final(*control_, pages_, early_, [this] { return now_us_; });
  AwaitRun run = this->run();
  std::size_t kept = 0;
  for (Awaiting* const awaits : std::initializer_list<Awaiting*>{&connections, &final, &run}) {
    for (const char* text : {"", "{", R"({"command":"check"})", R"({"command":"end"})"}) {
      auto asked = Client::local(text);
      awaits->on_letter(std::move(asked.first));
      EXPECT_EQ(asked.second.exit_code(), -1) << text;  // It is answered by the next phase.
      ++kept;
    }
    for (const Purpose purpose : {Purpose::kHome, Purpose::kResume}) {
      auto ends = make_memory_channels().value();
      Letter letter;
      letter.preamble = Preamble{.purpose = purpose, .session = {}};
      letter.channel = std::move(ends.first);
      awaits->on_letter(std::move(letter));
      EXPECT_FALSE(ends.second->try_receive()) << "not closed";
    }
  }
  EXPECT_EQ(early_.take().size(), kept);
}

TEST_F(AwaitsTest, WhatIsAskedEarlyIsKept) {
  AwaitConnections awaits = connections();
  auto asked = Client::local("{}");
  awaits.on_letter(std::move(asked.first));
  EXPECT_TRUE(awaits.step());
  EXPECT_EQ(asked.second.exit_code(), -1);
  AwaitRun later = run();
  auto more = Client::local("{}");
  later.on_letter(std::move(more.first));
  EXPECT_EQ(early_.take().size(), 2U);
}

TEST_F(AwaitsTest, WhatIsAskedEarlyIsRefusedWhenItNeverRuns) {
  auto asked = Client::local("{}");
  {
    EarlyLetters early;
    AwaitRun awaits(*control_, pages_, early, "subject", [this] { return now_us_; });
    awaits.on_letter(std::move(asked.first));
  }
  EXPECT_EQ(asked.second.exit_code(), MIGRATE_FAILED);
}

TEST_F(AwaitsTest, RunWithTheSignalsThatCameMeanwhile) {
  AwaitRun awaits = run();
  EXPECT_TRUE(awaits.step());
  say([](wire::ControlMessage& message) { message.mutable_run()->add_signals("one"); });
  EXPECT_FALSE(awaits.step());
  const auto run = awaits.outcome();
  ASSERT_TRUE(run);
  EXPECT_EQ(run->signals_size(), 1);
}

TEST_F(AwaitsTest, RunThatDoesNotCome) {
  AwaitRun awaits = run();
  now_us_ += 59'000'000;
  EXPECT_TRUE(awaits.step());
  now_us_ += 1'100'000;
  EXPECT_FALSE(awaits.step());
  EXPECT_EQ(awaits.outcome().error().code, ErrorCode::kRetry);
}

TEST_F(AwaitsTest, ASourceThatFailsSaysWhy) {
  AwaitRun awaits = run();
  say([](wire::ControlMessage& message) { message.mutable_failed()->set_reason("no room"); });
  EXPECT_FALSE(awaits.step());
  const auto outcome = awaits.outcome();
  EXPECT_EQ(outcome.error().code, ErrorCode::kRefused);
  EXPECT_NE(outcome.error().message().find("no room"), std::string::npos);
}

TEST_F(AwaitsTest, ASourceThatIsLostBeforeRun) {
  AwaitRun awaits = run();
  source_.reset();
  EXPECT_FALSE(awaits.step());
  EXPECT_EQ(awaits.outcome().error().code, ErrorCode::kPeerLost);
}

TEST_F(AwaitsTest, ASourceThatComesAgainHasLostTheLink) {
  AwaitRun awaits = run();
  awaits.on_letter(connection(Purpose::kResume));
  EXPECT_FALSE(awaits.step());
  EXPECT_EQ(awaits.outcome().error().code, ErrorCode::kPeerLost);
}

TEST_F(AwaitsTest, RunCountsThoughTheSourceHasComeAgain) {
  AwaitRun awaits = run();
  say([](wire::ControlMessage& message) { message.mutable_run(); });
  awaits.on_letter(connection(Purpose::kResume));
  EXPECT_FALSE(awaits.step());
  EXPECT_TRUE(awaits.outcome());
}

// What the init of a cell does not take of a forked child, a later worker would lose.
TEST_F(AwaitsTest, MemoryOfAChildIsKeptAgain) {
  const UniqueFd fd(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  const PagerOptions options = pages_.options(0, check_plan(), 1);
  cell_.keeps_to_fail = 2;
  options.on_fork({.number = 2, .parent = 1, .userfault = fd.get()});
  EXPECT_TRUE(cell_.kept.empty());
  pages_.follow(true);
  EXPECT_TRUE(cell_.kept.empty());
  pages_.follow(true);
  ASSERT_EQ(cell_.kept.size(), 1U);
  EXPECT_EQ(cell_.kept[0].number, 2U);
  EXPECT_EQ(cell_.kept[0].parent, 1U);
}

// The process would wait for ever on a userfaultfd that nobody serves.
TEST_F(AwaitsTest, NothingIsKeptOnceAllHasCome) {
  const UniqueFd fd(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  const PagerOptions options = pages_.options(0, check_plan(), 1);
  cell_.keeps_to_fail = 1;
  options.on_fork({.number = 2, .parent = 1, .userfault = fd.get()});
  options.on_done();
  pages_.follow(true);
  EXPECT_TRUE(cell_.kept.empty());
}

}  // namespace
}  // namespace migrate
