// A whole move of a process, to a destination that is not one: in what order it is taken away from
// here, and that it is back where it was whenever the move comes to nothing.
#include "libmigrate/move/source_move.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <span>
#include <string>
#include <thread>

#include "base/file.h"
#include "libmigrate/image/only_process.h"
#include "libmigrate/image/refusal.h"
#include "libmigrate/program/layout.h"
#include "libmigrate/requests/request_json.h"
#include "libmigrate/trace/tracee.h"
#include "tests/libmigrate/inspect/held_process.h"
#include "tests/libmigrate/move/held_state.h"
#include "tests/libmigrate/move/loopback_destination.h"
#include "tests/libmigrate/move/stand_ins.h"

namespace migrate::handover_testing {
namespace {

constexpr uid_t kUser = 4711;

/// Is the asker's to move until it is told to hide itself.
void become_users() {
  ASSERT_EQ(::setresgid(kUser, kUser, kUser), 0);
  ASSERT_EQ(::setresuid(kUser, kUser, kUser), 0);
  ::prctl(PR_SET_DUMPABLE, 1);
  ::signal(SIGUSR1, [](int) { ::prctl(PR_SET_DUMPABLE, 0); });
}

program::Block* held_block = nullptr;
int held_socket = -1;

/// Holds itself with a socket open, both until SIGUSR1.
void hold_with_socket() {
  void* const place =
      ::mmap(reinterpret_cast<void*>(program::kBlockAddresses[0]), program::kBlockBytes,
             PROT_READ | PROT_WRITE, MAP_FIXED_NOREPLACE | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(place, MAP_FAILED);
  held_block = static_cast<program::Block*>(place);
  held_block->magic = program::kBlockMagic;
  held_block->version = program::kBlockVersion;
  held_block->process = static_cast<std::uint32_t>(::getpid());
  held_block->holds = 1;
  held_socket = ::socket(AF_UNIX, SOCK_STREAM, 0);
  ::signal(SIGUSR1, [](int) {
    ::close(held_socket);
    held_block->holds = 0;
  });
}

class WholeMove : public testing::Test {
 protected:
  explicit WholeMove(const std::function<void()>& prepare = [] {}) : process_(prepare) {
    options_.pid = process_.pid();
    options_.request.asker = {.user = 0, .group = 0, .capabilities = ~std::uint64_t{0}};
    options_.context = &context_;
    options_.token = "secret";
    options_.destination = there_.address();
    options_.host_clocks = clock_offsets(0).value();
    there_.expect_token("secret");
    hooks_.freeze_relay = [this](const wire::Image&) {
      ++relays_frozen_;
      return wire::RelayState();
    };
    hooks_.thaw_relay = [this] { ++relays_thawed_; };
    hooks_.on_outgoing = [this](const wire::Outgoing& outgoing) {
      noted_ = outgoing;
      return notes_ ? Result<void>() : fail(make_error(ErrorCode::kSystem, "note"));
    };
    hooks_.on_area = [this](std::uint64_t area) { area_ = area; };
    hooks_.on_captured = [this](const wire::Image&) {
      return captures_ ? Result<void>() : fail(make_error(ErrorCode::kSystem, "take the streams"));
    };
    there_.when(Body::kFinal, [this] { noted_at_final_ = noted_; });
    there_.when(Body::kRun, [this] { parked_at_run_ = is_parked(); });
  }

  void SetUp() override {
    if (kIsThreadSanitizer) {
      GTEST_SKIP() << "ThreadSanitizer maps files that it has deleted, which is refused";
    }
    mask_ = blocked_signals(process_.pid());
  }

  MoveOutcome move(double seconds = 0) {
    there_.start();
    move_.emplace(options_, hooks_, nobody_);
    return move_->attempt_for(seconds);
  }
  bool is_parked() const { return handover_testing::is_parked(process_.pid(), area_); }
  void expect_runs_on() const {
    EXPECT_FALSE(is_traced(process_.pid()));
    EXPECT_FALSE(is_parked());
    EXPECT_EQ(blocked_signals(process_.pid()), mask_);
  }
  /// Failed before Run: the process is here, as it was, and its relay too.
  void expect_taken_back() {
    EXPECT_FALSE(there_.has_heard(Body::kRun));
    EXPECT_EQ(relays_thawed_, relays_frozen_);
    expect_runs_on();
  }
  bool handle_until(const std::function<bool()>& reached) {
    for (int look = 0; look < StandInDestination::kLookMs && !reached(); ++look) {
      pollfd polled{move_->control_fd(), POLLIN, 0};
      ::poll(&polled, 1, 1);
      move_->handle();
    }
    return reached();
  }

  test::HeldProcess process_;
  LoopbackDestination there_;
  WorkerContext context_;
  SourceMoveOptions options_;
  SourceMove::Hooks hooks_;
  EventSink nobody_;
  std::string mask_;
  std::atomic<std::uint64_t> area_ = 0;
  bool notes_ = true;
  bool captures_ = true;
  int relays_frozen_ = 0;
  int relays_thawed_ = 0;
  std::optional<wire::Outgoing> noted_;
  std::optional<wire::Outgoing> noted_at_final_;
  bool parked_at_run_ = false;
  std::optional<SourceMove> move_;
};

TEST_F(WholeMove, IsNotedBeforeTheImageLeavesAndParkedBeforeRun) {
  ASSERT_EQ(move(), MoveOutcome::kCommitted);
  EXPECT_EQ(there_.heard(), (std::vector{Body::kOffer, Body::kFinal, Body::kRun}));
  ASSERT_TRUE(noted_at_final_);
  EXPECT_EQ(
      noted_at_final_->session(),
      std::string(reinterpret_cast<const char*>(move_->session().data()), move_->session().size()));
  EXPECT_EQ(noted_at_final_->destination(), there_.address().to_string());
  EXPECT_EQ(noted_at_final_->incarnation(), "first");
  EXPECT_FALSE(noted_at_final_->confirmed());
  EXPECT_TRUE(parked_at_run_);
  EXPECT_EQ(move_->fate(), Fate::kRuns);
  EXPECT_TRUE(noted_->confirmed());
  EXPECT_EQ(relays_thawed_, 0);
  EXPECT_TRUE(is_parked());
}

TEST_F(WholeMove, IsDoneWhenNothingIsOwed) {
  there_.cut(Body::kGoodbye);
  ASSERT_EQ(move(), MoveOutcome::kCommitted);
  EXPECT_FALSE(move_->done());
  there_.say(progress(3));
  EXPECT_TRUE(handle_until([this] { return move_->owed_pages() == 3; }));
  there_.say(progress(0, true));
  EXPECT_TRUE(handle_until([this] { return move_->done(); }));
  EXPECT_TRUE(noted_->done());
  const nlohmann::json result = move_->result();
  EXPECT_EQ(result["state"], "done");
  EXPECT_EQ(result["pid"], process_.pid());
  EXPECT_EQ(move_->handle(), Original::kHere);
}

TEST_F(WholeMove, InModeEagerIsParkedWhenAllIsThere) {
  options_.request.plan = parse_mode("eager").value();
  bool parked_at_image = true;
  there_.when(Body::kFinal, [&] { parked_at_image = is_parked(); });
  ASSERT_EQ(move(), MoveOutcome::kCommitted);
  EXPECT_FALSE(parked_at_image);
  EXPECT_TRUE(parked_at_run_);
}

TEST_F(WholeMove, ThatTheDestinationRefusesChangesNothing) {
  wire::ControlMessage refuses = offer_reply();
  *refuses.mutable_offer_reply()->add_refusals() = make_refusal("NO_VDSO", "process 1");
  there_.answer(Body::kOffer, {refuses});
  ASSERT_EQ(move(), MoveOutcome::kRefused);
  EXPECT_EQ(move_->refusals().at(0).code(), "NO_VDSO");
  EXPECT_EQ(relays_frozen_, 0);
  EXPECT_FALSE(noted_);
  expect_taken_back();
}

TEST_F(WholeMove, IsTriedAgainWhileTheRefusalIsTransient) {
  wire::ControlMessage refuses = offer_reply();
  *refuses.mutable_offer_reply()->add_refusals() = make_refusal("STOPPED", "process 1");
  ASSERT_TRUE(all_transient({refuses.offer_reply().refusals(0)}));
  there_.answer_in_turn(Body::kOffer, {{refuses}, {offer_reply()}});
  ASSERT_EQ(move(30), MoveOutcome::kCommitted);
  EXPECT_EQ(there_.heard(), (std::vector{Body::kOffer, Body::kOffer, Body::kFinal, Body::kRun}));
}

TEST_F(WholeMove, IsTriedAgainWhileTheDestinationStartsAnew) {
  there_.cut(Body::kOffer);
  there_.when(Body::kOffer, [this, offers = 0]() mutable {
    if (++offers == 3) {
      there_.cut(Body::BODY_NOT_SET);
    }
  });
  ASSERT_EQ(move(30), MoveOutcome::kCommitted);
  EXPECT_EQ(there_.heard(),
            (std::vector{Body::kOffer, Body::kOffer, Body::kOffer, Body::kFinal, Body::kRun}));
}

TEST_F(WholeMove, IsNotTriedAgainUnaskedWhenTheDestinationIsLost) {
  there_.cut(Body::kOffer);
  ASSERT_EQ(move(), MoveOutcome::kFailed);
  EXPECT_EQ(move_->error().code, ErrorCode::kPeerLost);
  EXPECT_EQ(there_.heard(), std::vector{Body::kOffer});
  expect_taken_back();
}

TEST_F(WholeMove, ACheckOnlyOffers) {
  options_.request.plan = check_plan();
  there_.start();
  SourceMove move(options_, {}, nobody_);
  const auto refusals = move.check();
  ASSERT_TRUE(refusals) << refusals.error().message();
  EXPECT_TRUE(refusals->empty());
  EXPECT_EQ(there_.heard(), std::vector{Body::kOffer});
  expect_runs_on();
}

// It asks first, on a connection that it closes, since it knows nothing of the way.
TEST_F(WholeMove, InModeAutoIsOfferedInTheModeThatSuits) {
  options_.request.plan = parse_mode("auto").value();
  options_.request.wish = {.best = Wish::kBytes, .sample = std::chrono::milliseconds(2)};
  ASSERT_EQ(move(), MoveOutcome::kCommitted);
  EXPECT_EQ(there_.heard(), (std::vector{Body::kOffer, Body::kOffer, Body::kFinal, Body::kRun}));
  const nlohmann::json result = move_->result();
  EXPECT_EQ(result["mode"], "demand");  // It writes nothing.
  EXPECT_EQ(result["mode"], result["choice"]["mode"]);
  EXPECT_EQ(noted_->mode(), result["mode"]);
  EXPECT_EQ(result["choice"]["speeds_from"], "usual");
  EXPECT_FALSE(result["choice"].contains("to_prediction"));  // It is not over.
}

TEST_F(WholeMove, ACheckOfModeAutoTellsWhatSuits) {
  options_.request.plan = check_plan(parse_mode("auto").value());
  options_.request.wish = {.best = Wish::kBytes, .sample = std::chrono::milliseconds(2)};
  wire::ControlMessage ready = offer_reply();
  ready.mutable_offer_reply()->set_answers_probes(true);
  there_.answer(Body::kOffer, {ready});
  wire::ControlMessage probe;
  probe.mutable_probe();
  there_.answer(Body::kProbe, {probe});
  there_.start();
  SourceMove move(options_, {}, nobody_);
  const auto refusals = move.check();
  ASSERT_TRUE(refusals) << refusals.error().message();
  EXPECT_TRUE(refusals->empty());
  ASSERT_TRUE(move.choice());
  EXPECT_EQ(move.choice()->best().plan.word, "demand");
  EXPECT_EQ(move.choice()->facts.speeds_from, "probe");
  EXPECT_TRUE(there_.has_heard(Body::kProbe));
  EXPECT_FALSE(there_.has_heard(Body::kFinal));
  expect_runs_on();
}

TEST_F(WholeMove, InModeAutoThatNobodyWantsAnyMoreRunsOn) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
  nobody_ = EventSink(UniqueFd(ends[0]));
  const UniqueFd client(ends[1]);
  options_.request.plan = parse_mode("auto").value();
  options_.request.wish.sample = std::chrono::minutes(10);
  there_.when(Body::kOffer, [&client] {
    EXPECT_TRUE(write_all(client.get(), std::as_bytes(std::span(kCancel))));
  });
  EXPECT_EQ(move(), MoveOutcome::kFailed);
  EXPECT_EQ(move_->error().code, ErrorCode::kCancelled) << move_->error().message();
  EXPECT_EQ(there_.heard(), (std::vector{Body::kOffer}));
  expect_taken_back();
}

TEST_F(WholeMove, ThatCannotBeNotedSendsNoImage) {
  notes_ = false;
  ASSERT_EQ(move(), MoveOutcome::kFailed);
  EXPECT_EQ(there_.heard(), std::vector{Body::kOffer});
  EXPECT_EQ(relays_frozen_, 0);
  expect_taken_back();
}

TEST_F(WholeMove, ThatTheDestinationCannotRestoreIsTakenBack) {
  there_.answer(Body::kFinal, {failed()});
  ASSERT_EQ(move(), MoveOutcome::kFailed);
  EXPECT_NE(move_->error().message().find("no room"), std::string::npos);
  EXPECT_EQ(relays_frozen_, 1);
  expect_taken_back();
}

TEST_F(WholeMove, ThatTheDestinationCannotRestoreInModeEagerIsTakenBack) {
  options_.request.plan = parse_mode("eager").value();
  there_.answer(Body::kFinal, {failed()});
  ASSERT_EQ(move(), MoveOutcome::kFailed);
  expect_taken_back();
}

TEST_F(WholeMove, WhoseDestinationIsLostBeforeRunIsTakenBack) {
  there_.cut(Body::kFinal);
  ASSERT_EQ(move(), MoveOutcome::kFailed);
  EXPECT_EQ(relays_frozen_, 1);
  expect_taken_back();
}

// A client may take it back until Run is sent.
TEST_F(WholeMove, ThatNobodyWantsAnyMoreBeforeRunIsTakenBack) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
  nobody_ = EventSink(UniqueFd(ends[0]));
  const UniqueFd client(ends[1]);
  there_.when(Body::kFinal, [&client] {
    EXPECT_TRUE(write_all(client.get(), std::as_bytes(std::span(kCancel))));
  });
  EXPECT_EQ(move(), MoveOutcome::kFailed);
  EXPECT_EQ(move_->error().code, ErrorCode::kCancelled) << move_->error().message();
  expect_taken_back();
}

TEST_F(WholeMove, WhoseStreamsCannotBeTakenIsTakenBack) {
  captures_ = false;
  ASSERT_EQ(move(), MoveOutcome::kFailed);
  EXPECT_EQ(relays_frozen_, 1);
  expect_taken_back();
}

TEST_F(WholeMove, OfAProcessThatIsKilledMeanwhileIsOfNone) {
  there_.when(Body::kFinal, [this] { ::kill(process_.pid(), SIGKILL); });
  there_.answer(Body::kFinal, {failed()});
  ASSERT_EQ(move(), MoveOutcome::kFailed);
  EXPECT_EQ(move_->error().code, ErrorCode::kNotFound) << move_->error().message();
  EXPECT_TRUE(move_->refusals().empty());
}

// It may run there: only who knows that it does not lets it run here.
TEST_F(WholeMove, InDoubtStandsStillHere) {
  there_.cut(Body::kRun);
  ASSERT_EQ(move(), MoveOutcome::kInDoubt);
  EXPECT_TRUE(is_parked());
  EXPECT_TRUE(is_traced(process_.pid()));
  EXPECT_EQ(relays_thawed_, 0);
  EXPECT_EQ(move_->fate(), Fate::kUnknown);
  ASSERT_TRUE(move_->resume_here());
  EXPECT_EQ(relays_thawed_, 1);
  expect_runs_on();
}

TEST_F(WholeMove, OfWhichTheDestinationSaysAfterRunThatItNeverRanStandsStillUntilItIsResumed) {
  there_.answer(Body::kRun, {failed()});
  ASSERT_EQ(move(), MoveOutcome::kInDoubt);
  EXPECT_EQ(move_->fate(), Fate::kNeverRan);
  EXPECT_TRUE(is_parked());
  ASSERT_TRUE(move_->resume_here());
  expect_runs_on();
}

TEST_F(WholeMove, InDoubtIsSettledByWhatTheDestinationSaysOnceMore) {
  there_.cut(Body::kRun);
  there_.answer_resume({verdict(wire::Verdict::NEVER_RAN, "first")});
  ASSERT_EQ(move(), MoveOutcome::kInDoubt);
  move_->ask_once_more();
  EXPECT_EQ(move_->fate(), Fate::kNeverRan);
  EXPECT_TRUE(is_parked());
}

TEST_F(WholeMove, IsAskedAboutBySomebodyWhoHasOnlyTheNote) {
  there_.answer_resume({verdict(wire::Verdict::NEVER_RAN, "first")});
  there_.start();
  SourceMove move(options_, hooks_, nobody_);
  const auto answer = move.ask_verdict(SessionId{}, "first");
  ASSERT_TRUE(answer) << answer.error().message();
  EXPECT_EQ(answer->fate(), wire::Verdict::NEVER_RAN);
  EXPECT_FALSE(move.ask_verdict(SessionId{}, "second"));
}

class MoveOfAHolder : public WholeMove {
 protected:
  MoveOfAHolder() : WholeMove(hold_with_socket) {}
};

// What it has open for the moment of its section refuses it for no longer than the section.
TEST_F(MoveOfAHolder, IsTriedAgainWhateverElseIsSeenThen) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
  nobody_ = EventSink(UniqueFd(ends[0]));
  UniqueFd client(ends[1]);
  std::thread user([&client, pid = process_.pid()] {
    std::string heard;
    std::array<char, 4096> bytes{};
    bool released = false;
    for (ssize_t count = 0; (count = ::read(client.get(), bytes.data(), bytes.size())) > 0;) {
      heard.append(bytes.data(), static_cast<std::size_t>(count));
      const std::size_t first = heard.find("inspect");
      if (!released && heard.find("inspect", first + 1) != std::string::npos) {
        released = ::kill(pid, SIGUSR1) == 0;
      }
    }
  });
  EXPECT_EQ(move(), MoveOutcome::kCommitted) << test::text(move_->refusals());
  nobody_ = EventSink();
  user.join();
}

/// Of a process that its user has moved.
class MoveOfAUser : public WholeMove {
 protected:
  MoveOfAUser() : WholeMove(become_users) {
    options_.request.asker = {.user = kUser, .group = kUser};
  }

  /// The process is told to hide itself, and does so.
  void hide() {
    ::kill(process_.pid(), SIGUSR1);
    struct stat owner {};
    const std::string path = "/proc/" + std::to_string(process_.pid()) + "/status";
    for (int look = 0; look < StandInDestination::kLookMs; ++look) {
      ASSERT_EQ(::stat(path.c_str(), &owner), 0);
      if (owner.st_uid == 0) {
        return;
      }
      ::usleep(1000);
    }
    ADD_FAILURE() << "the process does not hide itself";
  }
};

TEST_F(MoveOfAUser, IsHisToAskFor) {
  EXPECT_EQ(move(), MoveOutcome::kCommitted)
      << move_->error().message() << test::text(move_->refusals());
}

// Who may is judged by what is frozen: what it became since it was looked at is not his.
TEST_F(MoveOfAUser, IsJudgedOnTheFrozenProcessBeforeTheImageLeaves) {
  there_.when(Body::kOffer, [this] { hide(); });
  ASSERT_EQ(move(), MoveOutcome::kRefused);
  EXPECT_EQ(move_->refusals().at(0).code(), "NOT_PERMITTED");
  EXPECT_FALSE(there_.has_heard(Body::kFinal));
  expect_taken_back();
}

}  // namespace
}  // namespace migrate::handover_testing
