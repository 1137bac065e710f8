// What a worker does from when it has told the next place to run its process until it owes nothing:
// each test is one trace.
#include "libmigrate/guest/going_on.h"

#include "libmigrate/guest/guest_life.h"
#include "tests/libmigrate/guest/guest_fixture.h"

namespace migrate {
namespace {

class GoingOnTest : public GuestFixture {
 protected:
  void SetUp() override {
    GuestFixture::SetUp();
    pages_->owed_pages = 0;
    GuestServing serving(*guest_, moves_);
    step(serving);
    auto move = std::make_unique<StandInDeparture>(now_us_);
    move_ = move.get();
    auto asked = Client::local(move_request());
    client_ = std::move(asked.second);
    onward_ = OnwardMove{EventSink(std::move(asked.first.fd)), MoveWait::kResumed, std::move(move)};
    guest_->record().noted().mutable_outgoing()->set_destination("hostC:7070");
  }

  void TearDown() override {
    phase_.reset();  // It is of the guest, which is over now.
    GuestFixture::TearDown();
  }

  void doubt() {
    move_->fate_now = Fate::kUnknown;
    move_->lose();
    phase_ = std::make_unique<GuestInDoubt>(*guest_, onward_);
  }
  void leave() { phase_ = std::make_unique<GuestLeaving>(*guest_, onward_); }
  GuestInDoubt& in_doubt() { return static_cast<GuestInDoubt&>(*phase_); }
  bool step() { return GuestFixture::step(*phase_); }
  using GuestFixture::step;
  Client ask(std::pair<Letter, Client> asked) {
    phase_->on_letter(std::move(asked.first));
    return std::move(asked.second);
  }
  static std::string resolve(const char* how) { return request("resolve", {{"action", how}}); }
  bool is_outgoing() { return guest_->record().noted().has_outgoing(); }

  OnwardMove onward_;
  StandInDeparture* move_ = nullptr;
  Client client_;
  std::unique_ptr<GoingOn> phase_;
};

TEST_F(GoingOnTest, StandsStillWhileItIsInDoubt) {
  doubt();
  EXPECT_EQ(guest_->phase(), GuestPhase::kInDoubt);
  EXPECT_TRUE(step());
  EXPECT_EQ(client_.exit_code(), -1);
  now_us_ += kPatienceUs + 1;
  EXPECT_TRUE(step());
  EXPECT_EQ(client_.exit_code(), MIGRATE_LOST);
  EXPECT_EQ(move_->resumed, 0);
}

TEST_F(GoingOnTest, GoesOnHereWhenItNeverRanThere) {
  doubt();
  EXPECT_TRUE(step());
  move_->fate_now = Fate::kNeverRan;
  EXPECT_FALSE(step());
  EXPECT_EQ(in_doubt().settle(), GuestInDoubt::End::kHere);
  EXPECT_EQ(move_->resumed, 1);
  EXPECT_EQ(guest_->phase(), GuestPhase::kIndependent);
  EXPECT_FALSE(is_outgoing());
  EXPECT_EQ(client_.exit_code(), MIGRATE_FAILED);
}

TEST_F(GoingOnTest, LeavesWhenItRunsThere) {
  doubt();
  move_->fate_now = Fate::kRuns;
  EXPECT_FALSE(step());
  EXPECT_EQ(in_doubt().settle(), GuestInDoubt::End::kThere);
  EXPECT_EQ(move_->resumed, 0);
  EXPECT_TRUE(is_outgoing());
}

TEST_F(GoingOnTest, HasLeftWhenItEndedThere) {
  doubt();
  move_->fate_now = Fate::kEnded;
  EXPECT_FALSE(step());
  EXPECT_EQ(in_doubt().settle(), GuestInDoubt::End::kThere);
}

TEST_F(GoingOnTest, AnOperatorsWordWaitsForACallFromThere) {
  doubt();
  Client operator_ = ask(Client::local(resolve("resume-source")));
  EXPECT_TRUE(step());  // Where it runs elsewhere it has two seconds to call its home.
  EXPECT_EQ(operator_.exit_code(), -1);
  EXPECT_EQ(move_->resumed, 0);
}

TEST_F(GoingOnTest, ASecondDecisionWaitsForTheFirst) {
  doubt();
  Client first = ask(Client::local(resolve("give-up")));
  Client second = ask(Client::local(resolve("resume-source")));
  EXPECT_EQ(second.exit_code(), MIGRATE_ERROR);
  EXPECT_EQ(first.exit_code(), -1);
}

TEST_F(GoingOnTest, ADecisionIsRefusedWhenTheDestinationAnswers) {
  doubt();
  Client operator_ = ask(Client::local(resolve("resume-source")));
  move_->fate_when_asked = Fate::kRuns;
  EXPECT_EQ(in_doubt().settle(), GuestInDoubt::End::kThere);
  EXPECT_EQ(move_->asked, 1);
  EXPECT_EQ(move_->resumed, 0);
  EXPECT_EQ(operator_.exit_code(), MIGRATE_REFUSED);
}

TEST_F(GoingOnTest, AnOperatorResumesIt) {
  doubt();
  Client operator_ = ask(Client::local(resolve("resume-source")));
  EXPECT_EQ(in_doubt().settle(), GuestInDoubt::End::kHere);
  EXPECT_EQ(move_->asked, 1);
  EXPECT_EQ(move_->resumed, 1);
  EXPECT_EQ(operator_.exit_code(), MIGRATE_DONE);
}

TEST_F(GoingOnTest, AnOperatorGivesItUp) {
  doubt();
  static_cast<void>(guest_->home().relay()->freeze_state());  // With the process, as it left.
  Client operator_ = ask(Client::local(resolve("give-up")));
  EXPECT_EQ(in_doubt().settle(), GuestInDoubt::End::kOver);
  EXPECT_EQ(operator_.exit_code(), MIGRATE_DONE);
  EXPECT_TRUE(guest_->exited());
  EXPECT_TRUE(cell_->ended);
  EXPECT_FALSE(is_outgoing());
  GuestServing serving(*guest_, moves_);
  step(serving);
  ASSERT_TRUE(exited_);
  EXPECT_NE(exited_->lost().find("gave it up"), std::string::npos);
}

TEST_F(GoingOnTest, HomeKnowsThatItRunsThere) {
  doubt();
  EXPECT_TRUE(step());
  // A later place calls home.
  wire::RelayState later = make_relay_state({});
  later.set_epoch(2);
  auto other = GuestRelay::create(later, {[](auto) {}, [] {}}).value();
  auto ends = make_memory_channels().value();
  home_->attach(std::move(ends.second));
  other->attach(std::move(ends.first));
  other->activate();
  bool more = true;
  for (int i = 0; i < 100 && more; ++i) {
    static_cast<void>(other->handle());
    now_us_ += 50'000;
    more = step();
  }
  EXPECT_FALSE(more);
  EXPECT_EQ(move_->fate(), Fate::kRuns);
}

TEST_F(GoingOnTest, ItsHomeIsAskedOnceASecond) {
  home_reachable_ = false;
  doubt();
  calls_ = 0;
  EXPECT_TRUE(step());
  EXPECT_EQ(calls_, 1);
  now_us_ += 1'000'001;
  EXPECT_TRUE(step());
  EXPECT_EQ(calls_, 2);
}

TEST_F(GoingOnTest, TellsItsClientWhenItLeaves) {
  leave();
  EXPECT_EQ(guest_->phase(), GuestPhase::kLeaving);
  EXPECT_EQ(client_.exit_code(), MIGRATE_DONE);
  EXPECT_EQ(move_->hidden, 1);
  EXPECT_EQ(guest_->home().relay(), nullptr);
}

TEST_F(GoingOnTest, AClientMayWaitUntilNothingIsOwed) {
  onward_.wait = MoveWait::kDone;
  leave();
  EXPECT_TRUE(step());
  EXPECT_EQ(client_.exit_code(), -1);
  move_->owes_nothing = true;
  EXPECT_TRUE(step());  // Its own source has not said goodbye.
  EXPECT_EQ(client_.exit_code(), MIGRATE_DONE);
}

TEST_F(GoingOnTest, LeavesWhenNothingIsOwedAndItsSourceKnows) {
  leave();
  move_->owes_nothing = true;
  say_goodbye();
  EXPECT_FALSE(step());
  guest_->close();
  EXPECT_EQ(guest_->phase(), GuestPhase::kWentOn);
  EXPECT_FALSE(file_exists());
}

TEST_F(GoingOnTest, WaitsTwoSecondsForItsOwnSource) {
  leave();
  move_->owes_nothing = true;
  EXPECT_TRUE(step());
  now_us_ += 1'900'000;
  EXPECT_TRUE(step());
  now_us_ += 200'000;
  EXPECT_FALSE(step());
  guest_->close();
  EXPECT_TRUE(file_exists());  // For the source, whenever it asks.
}

TEST_F(GoingOnTest, ServesNoMoreWhenWhatWasParkedIsGone) {
  leave();
  EXPECT_TRUE(step());
  move_->parked_gone = true;
  say_goodbye();
  EXPECT_FALSE(step());
}

TEST_F(GoingOnTest, GivesUpADestinationThatIsSilentForTooLong) {
  context_.end_waiting_s = 10;
  leave();
  move_->lose();
  say_goodbye();
  EXPECT_TRUE(step());
  now_us_ += 10'500'000;
  EXPECT_FALSE(step());
}

TEST_F(GoingOnTest, AnOperatorGivesUpOnlyASilentDestination) {
  leave();
  Client early = ask(Client::local(resolve("give-up")));
  EXPECT_EQ(early.exit_code(), MIGRATE_REFUSED);
  move_->lose();
  Client wrong = ask(Client::local(resolve("resume-source")));
  EXPECT_EQ(wrong.exit_code(), MIGRATE_REFUSED);
  Client right = ask(Client::local(resolve("give-up")));
  EXPECT_EQ(right.exit_code(), MIGRATE_DONE);
  say_goodbye();
  EXPECT_FALSE(step());
}

TEST_F(GoingOnTest, ItsSourceMayComeAgainWhileItLeaves) {
  leave();
  auto again = make_memory_channels().value();
  Letter letter;
  letter.preamble = Preamble{.purpose = Purpose::kResume, .session = {}};
  letter.channel = std::move(again.first);
  source_ = std::make_unique<ControlChannel>(std::move(again.second), "guest");
  phase_->on_letter(std::move(letter));
  const auto told = told_source();
  ASSERT_TRUE(told && told->has_verdict());
  EXPECT_TRUE(told->verdict().progress().done());
}

// The whole life, with a mailbox of its own: it moves on, the doubt ends here, it moves again.
TEST_F(GoingOnTest, ALifeOfTwoMoves) {
  Mailbox mailbox = Mailbox::create(directory_, "00ff").value();
  auto first = std::make_unique<OnwardMove>(std::move(onward_));
  move_->fate_now = Fate::kNeverRan;
  moves_.next = std::make_unique<StandInDeparture>(now_us_);
  moves_.next->owes_nothing = true;
  say_goodbye();
  std::vector<Letter> early;
  auto asked = Client::local(move_request());
  early.push_back(std::move(asked.first));
  live(*guest_, mailbox, moves_, std::move(first), std::move(early));
  EXPECT_EQ(client_.exit_code(), MIGRATE_FAILED);
  EXPECT_EQ(asked.second.exit_code(), MIGRATE_DONE);
  EXPECT_EQ(guest_->phase(), GuestPhase::kWentOn);
}

}  // namespace
}  // namespace migrate
