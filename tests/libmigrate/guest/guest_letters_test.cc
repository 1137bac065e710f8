// Every kind of letter in every phase of a guest: whoever asks is answered, now or when it is done.
#include "libmigrate/guest/guest_letters.h"

#include "tests/libmigrate/guest/guest_fixture.h"

namespace migrate {
namespace {

/// What an answer may be: an exit code, kLater (kept, and answered once it is carried out).
constexpr int kLater = -1;

struct Row {
  GuestPhase phase;
  // Of a client on this host, and through the home.
  int move, move_by_home;
  int check, check_by_home;
  int resolve, resolve_by_home;
  int end, end_by_home;
};

constexpr Row kAnswers[] = {
    {GuestPhase::kServing, kLater, kLater, MIGRATE_DONE, MIGRATE_DONE, MIGRATE_ERROR, MIGRATE_ERROR,
     MIGRATE_REFUSED, MIGRATE_DONE},
    {GuestPhase::kIndependent, kLater, kLater, MIGRATE_DONE, MIGRATE_DONE, MIGRATE_ERROR,
     MIGRATE_ERROR, MIGRATE_REFUSED, MIGRATE_DONE},
    {GuestPhase::kInDoubt, MIGRATE_FAILED, MIGRATE_FAILED, MIGRATE_FAILED, MIGRATE_FAILED, kLater,
     MIGRATE_REFUSED, MIGRATE_FAILED, MIGRATE_FAILED},
    {GuestPhase::kLeaving, MIGRATE_FAILED, MIGRATE_FAILED, MIGRATE_FAILED, MIGRATE_FAILED,
     MIGRATE_REFUSED, MIGRATE_REFUSED, MIGRATE_FAILED, MIGRATE_FAILED},
    {GuestPhase::kEnded, MIGRATE_ERROR, MIGRATE_ERROR, MIGRATE_ERROR, MIGRATE_ERROR, MIGRATE_ERROR,
     MIGRATE_ERROR, MIGRATE_REFUSED, MIGRATE_DONE},
    {GuestPhase::kEndedIndependent, MIGRATE_ERROR, MIGRATE_ERROR, MIGRATE_ERROR, MIGRATE_ERROR,
     MIGRATE_ERROR, MIGRATE_ERROR, MIGRATE_REFUSED, MIGRATE_DONE},
};

/// Whether a guest hears letters in that phase. Before it runs an arrival does (AwaitsTest has each
/// kind in each of its waits) or nobody until Run was carried out; afterwards only the mailbox of a
/// worker that ends (MailboxTest).
constexpr bool hears_letters(GuestPhase phase) {
  switch (phase) {
    case GuestPhase::kServing:
    case GuestPhase::kIndependent:
    case GuestPhase::kInDoubt:
    case GuestPhase::kLeaving:
    case GuestPhase::kEnded:
    case GuestPhase::kEndedIndependent:
      return true;
    case GuestPhase::kPrepared:
    case GuestPhase::kAwaitsRun:
    case GuestPhase::kTold:
    case GuestPhase::kMarked:
    case GuestPhase::kKept:
    case GuestPhase::kRan:
    case GuestPhase::kWentOn:
    case GuestPhase::kNeverRan:
    case GuestPhase::kOver:
      return false;
  }
  return false;
}

TEST(GuestLettersTable, HasEveryPhaseInWhichAGuestHears) {
  for (auto phase = GuestPhase::kPrepared; phase <= GuestPhase::kOver;
       phase = static_cast<GuestPhase>(static_cast<std::uint32_t>(phase) + 1)) {
    EXPECT_EQ(std::ranges::count(kAnswers, phase, &Row::phase), hears_letters(phase) ? 1 : 0)
        << to_string(phase);
  }
}

class GuestLetters : public GuestFixture, public testing::WithParamInterface<Row> {
 protected:
  /// The phase as the worker runs it.
  void enter(GuestPhase phase) {
    pages_->owed_pages = phase == GuestPhase::kServing || phase == GuestPhase::kEnded ? 5 : 0;
    auto serving = std::make_unique<GuestServing>(*guest_, moves_);
    if (phase == GuestPhase::kEnded || phase == GuestPhase::kEndedIndependent) {
      end_process(0);
    }
    step(*serving);
    if (phase == GuestPhase::kInDoubt || phase == GuestPhase::kLeaving) {
      serving.reset();
      onward_.move = std::make_unique<StandInDeparture>(now_us_);
    }
    if (phase == GuestPhase::kInDoubt) {
      phase_ = std::make_unique<GuestInDoubt>(*guest_, onward_);
    } else if (phase == GuestPhase::kLeaving) {
      phase_ = std::make_unique<GuestLeaving>(*guest_, onward_);
    } else {
      phase_ = std::move(serving);
    }
    ASSERT_EQ(guest_->phase(), phase);
  }

  void expect_answer(std::pair<Letter, Client> asked, int expected, const std::string& what) {
    phase_->on_letter(std::move(asked.first));
    Client client = std::move(asked.second);
    EXPECT_EQ(client.exit_code(), expected) << what << " in " << to_string(guest_->phase());
    if (expected == kLater) {
      if (auto* in_doubt = dynamic_cast<GuestInDoubt*>(phase_.get())) {
        in_doubt->settle();  // As whoever runs it does at its end.
      }
      phase_.reset();
      EXPECT_NE(client.exit_code(), expected) << what << " is never answered";
    }
  }

  void TearDown() override {
    phase_.reset();
    GuestFixture::TearDown();
  }

  OnwardMove onward_;
  std::unique_ptr<WorkerPhase> phase_;
};

TEST_P(GuestLetters, OfAMove) {
  enter(GetParam().phase);
  expect_answer(Client::local(move_request()), GetParam().move, "move");
}

TEST_P(GuestLetters, OfAMoveByHome) {
  enter(GetParam().phase);
  expect_answer(Client::from_home(move_request()), GetParam().move_by_home, "move");
}

TEST_P(GuestLetters, OfACheck) {
  enter(GetParam().phase);
  expect_answer(Client::local(request("check")), GetParam().check, "check");
  expect_answer(Client::from_home(request("check")), GetParam().check_by_home, "check by home");
}

TEST_P(GuestLetters, OfADecision) {
  enter(GetParam().phase);
  expect_answer(Client::from_home(request("resolve", {{"action", "give-up"}})),
                GetParam().resolve_by_home, "resolve by home");
  expect_answer(Client::local(request("resolve", {{"action", "give-up"}})), GetParam().resolve,
                "resolve");
}

TEST_P(GuestLetters, OfAnEnd) {
  enter(GetParam().phase);
  expect_answer(Client::local(request("end")), GetParam().end, "end");
  expect_answer(Client::from_home(request("end")), GetParam().end_by_home, "end by home");
}

TEST_P(GuestLetters, OfNoUse) {
  enter(GetParam().phase);
  for (const char* text : {"", "{", "[]", "7", "{}", "{\"command\":7}", "{\"command\":\"fly\"}",
                           "{\"command\":\"ps\"}"}) {
    expect_answer(Client::local(text), MIGRATE_USAGE, text);
    if (*text != '\0') {  // A channel carries no message without bytes.
      expect_answer(Client::from_home(text), MIGRATE_USAGE, text);
    }
  }
}

TEST_P(GuestLetters, OfTheSource) {
  enter(GetParam().phase);
  for (const Purpose purpose : {Purpose::kUrgent, Purpose::kBulk, Purpose::kHome}) {
    auto ends = make_memory_channels().value();
    Letter letter;
    letter.preamble = Preamble{.purpose = purpose, .session = {}};
    letter.channel = std::move(ends.first);
    phase_->on_letter(std::move(letter));
  }
  auto ends = make_memory_channels().value();
  Letter letter;
  letter.preamble = Preamble{.purpose = Purpose::kResume, .session = {}};
  letter.channel = std::move(ends.first);
  phase_->on_letter(std::move(letter));
  const auto told = ControlChannel(std::move(ends.second), "guest").try_receive();
  ASSERT_TRUE(told && *told && (*told)->has_verdict());  // A source is always told that it runs.
  EXPECT_EQ((*told)->verdict().fate(), wire::Verdict::RUNS);
}

INSTANTIATE_TEST_SUITE_P(All, GuestLetters, testing::ValuesIn(kAnswers),
                         [](const auto& row) { return std::string(to_string(row.param.phase)); });

}  // namespace
}  // namespace migrate
