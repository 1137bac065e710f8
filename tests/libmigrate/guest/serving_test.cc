// What a worker does while its process runs here: each test is one trace of what its source, its
// home, its cell and its clients say.
#include "libmigrate/guest/serving.h"

#include <unistd.h>

#include "tests/libmigrate/guest/guest_fixture.h"

namespace migrate {
namespace {

class ServingTest : public GuestFixture {
 protected:
  void SetUp() override {
    GuestFixture::SetUp();
    serving_ = std::make_unique<GuestServing>(*guest_, moves_);
  }
  void TearDown() override {
    serving_.reset();
    GuestFixture::TearDown();
  }

  /// Sends a letter, and gives who waits for its answer.
  Client ask(std::pair<Letter, Client> asked) {
    serving_->on_letter(std::move(asked.first));
    return std::move(asked.second);
  }
  bool step() { return GuestFixture::step(*serving_); }
  void exit_with(int status) {
    end_process(status);
    cell_->events.push_back({CellEvent::Kind::kEmpty, 0});
  }

  std::unique_ptr<GuestServing> serving_;
};

TEST_F(ServingTest, TellsItsSourceWhatIsOwed) {
  EXPECT_TRUE(step());
  const auto told = told_source();
  ASSERT_TRUE(told && told->has_progress());
  EXPECT_EQ(told->progress().owed_pages(), 5U);
  EXPECT_FALSE(told->progress().done());
  EXPECT_TRUE(step());
  EXPECT_FALSE(told_source());  // Not more often than every 0.1 s.
  now_us_ += 100'001;
  EXPECT_TRUE(step());
  EXPECT_TRUE(told_source());
}

TEST_F(ServingTest, IsIndependentOnceAllHasCome) {
  EXPECT_TRUE(step());
  EXPECT_TRUE(told_source());
  pages_->owed_pages = 0;
  EXPECT_TRUE(step());
  EXPECT_EQ(guest_->phase(), GuestPhase::kIndependent);
  ASSERT_EQ(cell_->dropped.size(), 2U);  // The init must not hold what would make it wait.
  EXPECT_EQ(cell_->dropped[0].kind, Kept::Kind::kUserfault);
  const auto told = told_source();  // At once.
  ASSERT_TRUE(told && told->has_progress());
  EXPECT_TRUE(told->progress().done());
}

// The process would wait for ever for pages that a pager which is no more would bring.
TEST_F(ServingTest, WhatTheInitDidNotLetGoOfIsTriedAgain) {
  cell_->drops_to_fail = 1;
  pages_->owed_pages = 0;
  EXPECT_TRUE(serving_->step());
  ASSERT_EQ(cell_->dropped.size(), 1U);
  EXPECT_EQ(cell_->dropped[0].kind, Kept::Kind::kLedger);
  EXPECT_TRUE(serving_->step());
  ASSERT_EQ(cell_->dropped.size(), 2U);
  EXPECT_EQ(cell_->dropped[1].kind, Kept::Kind::kUserfault);
  EXPECT_TRUE(serving_->step());
  EXPECT_EQ(cell_->dropped.size(), 2U);
}

TEST_F(ServingTest, EndsWhenHomeAndSourceKnow) {
  pages_->owed_pages = 0;
  EXPECT_TRUE(step());
  say_goodbye();
  EXPECT_TRUE(step());
  EXPECT_TRUE(pages_->stopped);
  exit_with(3 << 8);
  EXPECT_FALSE(step());
  ASSERT_TRUE(exited_);
  EXPECT_EQ(exited_->wait_status(), 3 << 8);
  EXPECT_EQ(exited_->lost(), "");
  guest_->close();
  EXPECT_EQ(guest_->phase(), GuestPhase::kOver);
  EXPECT_FALSE(file_exists());
}

TEST_F(ServingTest, WaitsTenSecondsForASourceThatHasNotHeardOfTheEnd) {
  exit_with(0);
  EXPECT_TRUE(step());
  EXPECT_TRUE(exited_);
  now_us_ += 9'000'000;
  EXPECT_TRUE(step());
  now_us_ += 2'000'000;
  EXPECT_FALSE(step());
  guest_->close();
  EXPECT_TRUE(file_exists());  // Whoever finds none may say that the process never ran.
}

TEST_F(ServingTest, StaysUntilItsHomeHasHeardOfTheEnd) {
  home_reachable_ = false;
  pages_->owed_pages = 0;
  step();
  say_goodbye();
  exit_with(0);
  EXPECT_TRUE(step());
  now_us_ += 60'000'000;
  EXPECT_TRUE(step());
  EXPECT_FALSE(exited_);
  home_reachable_ = true;
  now_us_ += 1'000'000;
  EXPECT_FALSE(step());
  EXPECT_TRUE(exited_);
}

TEST_F(ServingTest, CallsHomeEveryHalfSecondOnly) {
  home_reachable_ = false;
  EXPECT_TRUE(step());
  EXPECT_EQ(calls_, 1);
  now_us_ += 400'000;
  EXPECT_TRUE(step());
  EXPECT_EQ(calls_, 1);
  now_us_ += 100'001;
  EXPECT_TRUE(step());
  EXPECT_EQ(calls_, 2);
}

TEST_F(ServingTest, ACellThatIsKilledTakesTheProcessWithIt) {
  cell_->ended = true;
  EXPECT_TRUE(step());
  ASSERT_TRUE(exited_);
  EXPECT_EQ(exited_->wait_status(), SIGKILL);
  EXPECT_NE(exited_->lost().find("hostB was killed"), std::string::npos);
}

TEST_F(ServingTest, TheInitMayHaveNotedTheEndBeforeItWasKilled) {
  guest_->record().file().mark().phase.note_end(7 << 8);
  cell_->ended = true;
  EXPECT_TRUE(step());
  ASSERT_TRUE(exited_);
  EXPECT_EQ(exited_->wait_status(), 7 << 8);
  EXPECT_EQ(exited_->lost(), "");
}

TEST_F(ServingTest, ChildrenOutliveTheProcess) {
  end_process(0);
  EXPECT_TRUE(step());
  ASSERT_TRUE(exited_);
  EXPECT_TRUE(exited_->keep_streams());
  EXPECT_FALSE(home_->all_ended());
  pages_->owed_pages = 0;
  say_goodbye();
  EXPECT_TRUE(step());
  EXPECT_EQ(guest_->phase(), GuestPhase::kEndedIndependent);
  cell_->events.push_back({CellEvent::Kind::kEmpty, 0});
  EXPECT_FALSE(step());
  EXPECT_TRUE(home_->all_ended());
}

TEST_F(ServingTest, JobControlGoesHome) {
  cell_->events.push_back({CellEvent::Kind::kStatus, (SIGTSTP << 8) | 0x7f});
  EXPECT_TRUE(step());
  EXPECT_EQ(stopped_, SIGTSTP);
  cell_->events.push_back({CellEvent::Kind::kStatus, 0xffff});
  EXPECT_TRUE(step());
  EXPECT_EQ(stopped_, 0);
}

TEST_F(ServingTest, SignalsOfHomeReachTheProcess) {
  EXPECT_TRUE(step());
  siginfo_t information{};
  information.si_signo = SIGUSR1;
  ASSERT_TRUE(home_->send_signal(std::as_bytes(std::span(&information, 1)).first(kSiginfoBytes)));
  EXPECT_TRUE(step());
  EXPECT_EQ(cell_->signals, std::vector<int>{SIGUSR1});
}

TEST_F(ServingTest, ASourceThatComesAgainHearsThatItRuns) {
  step();
  auto again = make_memory_channels().value();
  Letter letter;
  letter.preamble = Preamble{.purpose = Purpose::kResume, .session = {}};
  letter.channel = std::move(again.first);
  source_ = std::make_unique<ControlChannel>(std::move(again.second), "guest");
  serving_->on_letter(std::move(letter));
  const auto told = told_source();
  ASSERT_TRUE(told && told->has_verdict());
  EXPECT_EQ(told->verdict().fate(), wire::Verdict::RUNS);
  EXPECT_EQ(told->verdict().progress().owed_pages(), 5U);
}

TEST_F(ServingTest, ASilentSourceIsLetGo) {
  EXPECT_TRUE(step());
  now_us_ += kSilenceUs + 1;
  EXPECT_TRUE(step());
  EXPECT_FALSE(guest_->source().connected());
}

TEST_F(ServingTest, EndsAProcessThatWaitsForItsPagesForTooLong) {
  context_.end_waiting_s = 10;
  pages_->lost = true;
  EXPECT_TRUE(step());
  now_us_ += 9'000'000;
  EXPECT_TRUE(step());
  EXPECT_FALSE(cell_->ended);
  now_us_ += 1'100'000;
  EXPECT_TRUE(step());
  EXPECT_TRUE(cell_->ended);
}

TEST_F(ServingTest, ALinkThatComesBackResetsTheWait) {
  context_.end_waiting_s = 10;
  pages_->lost = true;
  EXPECT_TRUE(step());
  now_us_ += 9'000'000;
  pages_->lost = false;
  EXPECT_TRUE(step());
  now_us_ += 9'000'000;
  pages_->lost = true;
  EXPECT_TRUE(step());
  EXPECT_FALSE(cell_->ended);
}

// Nobody will ever send what they are owed, and they would wait for ever.
TEST_F(ServingTest, ChildrenEndIfTheHomeThatOwesThemPagesHasGivenThemUp) {
  home_has_no_worker_ = true;
  pages_->lost = true;
  EXPECT_TRUE(step());
  EXPECT_FALSE(cell_->ended) << "the process itself runs";
  end_process(0);
  static_cast<void>(step());
  EXPECT_TRUE(cell_->ended);
}

TEST_F(ServingTest, ChildrenThatAnotherHostOwesPagesWaitForIt) {
  guest_->record().noted().set_source("hostC:7070");
  home_has_no_worker_ = true;
  pages_->lost = true;
  end_process(0);
  EXPECT_TRUE(step());
  EXPECT_TRUE(guest_->home().relay()->home_over());
  EXPECT_FALSE(cell_->ended);
}

TEST_F(ServingTest, PageConnectionsGoToThePages) {
  for (const Purpose purpose : {Purpose::kUrgent, Purpose::kBulk}) {
    Letter letter;
    letter.preamble = Preamble{.purpose = purpose, .session = {}};
    letter.channel = make_memory_channels().value().first;
    serving_->on_letter(std::move(letter));
  }
  EXPECT_EQ(pages_->taken, (std::vector<Purpose>{Purpose::kUrgent, Purpose::kBulk}));
}

TEST_F(ServingTest, MovesOnceNothingIsOwed) {
  step();
  static_cast<void>(told_source());
  Client client = ask(Client::local(move_request()));
  const auto told = told_source();
  ASSERT_TRUE(told && told->has_send_all());  // It is in a hurry now.
  EXPECT_TRUE(step());
  EXPECT_TRUE(moves_.begun.empty());
  EXPECT_EQ(client.exit_code(), -1);
  pages_->owed_pages = 0;
  moves_.next = std::make_unique<StandInDeparture>(now_us_);
  EXPECT_FALSE(step());
  EXPECT_EQ(moves_.begun, std::vector<std::string>{"hostC:7070"});
  EXPECT_NE(serving_->take_onward(), nullptr);
}

TEST_F(ServingTest, AMoveThatIsRefusedChangesNothing) {
  pages_->owed_pages = 0;
  step();
  Client client = ask(Client::from_home(move_request()));
  EXPECT_TRUE(step());
  EXPECT_EQ(client.exit_code(), MIGRATE_REFUSED);
  EXPECT_EQ(guest_->phase(), GuestPhase::kIndependent);
}

// It was silently lazy once.
TEST_F(ServingTest, AModeThatIsNotKnownIsRefusedThroughTheHomeToo) {
  const std::string text = request("move", {{"destination", "hostC:7070"}, {"mode", "hasty"}});
  Client client = ask(Client::from_home(text));
  EXPECT_EQ(client.exit_code(), MIGRATE_USAGE);
  EXPECT_NE(client.result()["error"]["message"].get<std::string>().find("hasty"),
            std::string::npos);
}

TEST_F(ServingTest, WhoWaitsToMoveAProcessThatEndsIsTold) {
  Client client = ask(Client::local(move_request()));
  exit_with(0);
  step();
  EXPECT_EQ(client.exit_code(), MIGRATE_ERROR);
  EXPECT_NE(client.result()["error"]["message"].get<std::string>().find("has ended"),
            std::string::npos);
}

TEST_F(ServingTest, WhoWaitsForASecondMoveIsToldToAskAgain) {
  pages_->owed_pages = 0;
  step();
  Client first = ask(Client::local(move_request()));
  Client second = ask(Client::local(move_request()));
  moves_.next = std::make_unique<StandInDeparture>(now_us_);
  EXPECT_FALSE(step());
  // At once: the first move may be in doubt for long.
  EXPECT_EQ(second.exit_code(), MIGRATE_FAILED);
  EXPECT_NE(second.result()["error"]["message"].get<std::string>().find("it is leaving this host"),
            std::string::npos);
  EXPECT_EQ(first.exit_code(), -1);  // The move is its own.
}

TEST_F(ServingTest, IsEndedForAHomeWhereItWasKilled) {
  Client client = ask(Client::from_home(request("end")));
  EXPECT_EQ(client.exit_code(), MIGRATE_DONE);
  EXPECT_TRUE(cell_->ended);
  step();
  ASSERT_TRUE(exited_);
  EXPECT_EQ(exited_->wait_status(), SIGKILL);
}

// It may have become someone else's, whom its home's user may not kill.
TEST_F(ServingTest, IsNotEndedForAHomeWhoseUserMayNotSignalItNow) {
  guest_->record().noted().mutable_credentials()->set_uid_real(4711);
  Client client = ask(Client::from_home(request("end")));
  EXPECT_EQ(client.exit_code(), MIGRATE_REFUSED);
  EXPECT_FALSE(cell_->ended);
}

TEST_F(ServingTest, NotesWhatFailedToBeNotedAtTheNextChange) {
  // A stream whose end the init does not take at first: a later worker would lose it.
  wire::RelayState state =
      make_relay_state(std::vector<RelayStreamSpec>{{.id = 1, .directions = wire::RELAY_OUT}});
  guest_->home().set_relay(GuestRelay::create(state, guest_->relay_handlers()).value());
  const auto ends = guest_->home().relay()->create_endpoints(::getuid(), ::getgid()).value();
  cell_->keeps_to_fail = 1;
  guest_->note_change();
  EXPECT_TRUE(cell_->kept.empty());
  guest_->note_change();
  ASSERT_EQ(cell_->kept.size(), 1U);
  EXPECT_EQ(cell_->kept[0].kind, Kept::Kind::kRelayOut);
}

TEST_F(ServingTest, NoMoreThanSoManyMovesWait) {
  constexpr std::size_t kMostPending = 64;
  std::vector<Client> waiting;
  for (std::size_t i = 0; i < kMostPending; ++i) {
    waiting.push_back(ask(Client::local(move_request())));
    EXPECT_EQ(waiting.back().exit_code(), -1);
  }
  Client refused = ask(Client::local(move_request()));
  EXPECT_EQ(refused.exit_code(), MIGRATE_FAILED);
}

}  // namespace
}  // namespace migrate
