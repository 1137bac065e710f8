// Traces of a handover until Run is answered: each answer of the destination at each step, silence,
// and the loss of each connection.
#include "libmigrate/move/handover.h"

#include "libmigrate/image/only_process.h"
#include "tests/libmigrate/move/handover_world.h"

namespace migrate::handover_testing {
namespace {

class OfferTest : public HandoverTest {
 protected:
  ErrorCode code_of(const std::vector<wire::ControlMessage>& says) {
    make();
    there_.says = says;
    const auto offered = make_offer();
    EXPECT_FALSE(offered);
    EXPECT_EQ(handover_->phase(), HandoverPhase::kOffering);
    return offered ? ErrorCode::kInvalid : offered.error().code;
  }
};

TEST_F(OfferTest, SaysWhatIsOffered) {
  make("demand");
  there_.says = {offer_reply()};
  ASSERT_TRUE(handover_->open());
  wire::Offer offer;
  offer.set_command("job");
  ASSERT_TRUE(handover_->offer(offer, {}));
  const auto heard = there_.hear();
  ASSERT_TRUE(heard && heard->has_offer());
  EXPECT_EQ(heard->offer().command(), "job");
  EXPECT_EQ(heard->offer().mode(), "demand");
  EXPECT_EQ(heard->offer().page_transports_size(), 0);
  EXPECT_EQ(there_.sessions.front(), handover_->session());
  EXPECT_EQ(there_.purposes, std::vector{Purpose::kOffer});
}

TEST_F(OfferTest, EachHasASessionOfItsOwn) {
  make();
  ASSERT_TRUE(handover_->open());
  make();
  ASSERT_TRUE(handover_->open());
  EXPECT_NE(there_.sessions[0], there_.sessions[1]);
}

TEST_F(OfferTest, IsRefusedWithReasons) {
  wire::ControlMessage reply = offer_reply();
  reply.mutable_offer_reply()->add_refusals()->set_code("NO_MEMORY");
  EXPECT_EQ(code_of({reply}), ErrorCode::kRefused);
  ASSERT_EQ(handover_->refusals().size(), 1U);
  EXPECT_EQ(handover_->refusals()[0].code(), "NO_MEMORY");
  EXPECT_FALSE(handover_->not_there());  // Nobody looked for files.
}

TEST_F(OfferTest, IsRefusedForFilesOnly) {
  wire::ControlMessage reply = offer_reply();
  reply.mutable_offer_reply()->add_refusals()->set_code("FILE_MISSING");
  reply.mutable_offer_reply()->add_files_not_there(2);
  EXPECT_EQ(code_of({reply}), ErrorCode::kRefused);
  ASSERT_TRUE(handover_->not_there());
  EXPECT_EQ(handover_->not_there()->mapped, std::set<std::uint32_t>{2});
  reply.mutable_offer_reply()->add_refusals()->set_code("NO_MEMORY");
  EXPECT_EQ(code_of({reply}), ErrorCode::kRefused);
  EXPECT_FALSE(handover_->not_there());
}

TEST_F(OfferTest, FailsThereWithAReason) {
  EXPECT_EQ(code_of({failed()}), ErrorCode::kRefused);
  EXPECT_TRUE(handover_->refusals().empty());
}

TEST_F(OfferTest, IsAnsweredWithSomethingElse) {
  EXPECT_EQ(code_of({restored()}), ErrorCode::kCorrupt);
}

TEST_F(OfferTest, IsNotAnswered) {
  EXPECT_EQ(code_of({}), ErrorCode::kRetry);
}

TEST_F(OfferTest, IsAnsweredWithNonsense) {
  make();
  ASSERT_TRUE(handover_->open());
  there_.say_nonsense();
  EXPECT_EQ(handover_->offer({}, {}).error().code, ErrorCode::kCorrupt);
}

TEST_F(OfferTest, LosesItsConnection) {
  make();
  ASSERT_TRUE(handover_->open());
  there_.cut_control();
  EXPECT_EQ(handover_->offer({}, {}).error().code, ErrorCode::kPeerLost);
}

TEST_F(OfferTest, ReachesNobody) {
  make();
  there_.unreachable = true;
  EXPECT_EQ(handover_->open().error().code, ErrorCode::kPeerLost);
  EXPECT_FALSE(handover_->run_sent());
}

TEST_F(OfferTest, TellsTheTimeOfTheProcessAsOftenAsAsked) {
  make();
  wire::ControlMessage question;
  question.mutable_clock_request();
  there_.says = {question, question, offer_reply()};
  ASSERT_TRUE(handover_->open());
  constexpr std::int64_t kDayNs = 86'400 * kNanosecondsPerSecond;
  const std::int64_t before_ns = clock_ns(CLOCK_MONOTONIC);
  ASSERT_TRUE(handover_->offer({}, {.monotonic_ns = kDayNs, .boottime_ns = -kDayNs}));
  ASSERT_TRUE(there_.hears(Body::kOffer));
  for (int answer = 0; answer < 2; ++answer) {
    const auto heard = there_.hear();
    ASSERT_TRUE(heard && heard->has_clocks());
    EXPECT_GE(heard->clocks().monotonic_ns(), before_ns + kDayNs);
    EXPECT_LT(heard->clocks().boottime_ns(), clock_ns(CLOCK_BOOTTIME));
  }
}

TEST_F(OfferTest, OnlyAsks) {
  make("check");
  there_.says = {offer_reply()};
  EXPECT_TRUE(make_offer());
  handover_->abandon();
  EXPECT_EQ(there_.purposes, std::vector{Purpose::kOffer});
  EXPECT_TRUE(there_.hears(Body::kOffer));
  EXPECT_FALSE(there_.hear());
}

class ConnectPagesTest : public HandoverTest {
 protected:
  ErrorCode code_of(const std::vector<wire::ControlMessage>& says) {
    make();
    there_.says = says;
    EXPECT_TRUE(make_offer());
    const auto done = handover_->connect_pages();
    EXPECT_FALSE(done);
    EXPECT_FALSE(handover_->run_sent());
    return done ? ErrorCode::kInvalid : done.error().code;
  }
};

TEST_F(ConnectPagesTest, NotesTheSessionBeforeTheFreeze) {
  make();
  there_.says = {offer_reply(), connected()};
  ASSERT_TRUE(make_offer());
  ASSERT_TRUE(handover_->connect_pages());
  EXPECT_EQ(there_.purposes, (std::vector{Purpose::kOffer, Purpose::kUrgent, Purpose::kBulk}));
  EXPECT_EQ(there_.sessions[1], handover_->session());
  EXPECT_EQ(handover_->phase(), HandoverPhase::kOffered);
  ASSERT_EQ(noted_.size(), 1U);
  EXPECT_EQ(noted_[0].incarnation(), "first");
  EXPECT_EQ(noted_[0].mode(), "lazy");
  EXPECT_EQ(noted_[0].session().size(), 16U);
  EXPECT_FALSE(noted_[0].confirmed() || noted_[0].done());
  EXPECT_EQ(memory_.feeds, 0);
}

TEST_F(ConnectPagesTest, CannotOpenTheUrgentOne) {
  there_.refused = Purpose::kUrgent;
  EXPECT_EQ(code_of({offer_reply(), connected()}), ErrorCode::kPeerLost);
}

TEST_F(ConnectPagesTest, CannotOpenTheBulkOne) {
  there_.refused = Purpose::kBulk;
  EXPECT_EQ(code_of({offer_reply(), connected()}), ErrorCode::kPeerLost);
  EXPECT_TRUE(noted_.empty());
}

TEST_F(ConnectPagesTest, FailsThere) {
  EXPECT_EQ(code_of({offer_reply(), failed()}), ErrorCode::kRefused);
}

TEST_F(ConnectPagesTest, HearsNothing) {
  EXPECT_EQ(code_of({offer_reply()}), ErrorCode::kRetry);
}

TEST_F(ConnectPagesTest, CannotBeNoted) {
  notes_ = false;
  EXPECT_EQ(code_of({offer_reply(), connected()}), ErrorCode::kSystem);
}

class ImageTest : public HandoverTest {
 protected:
  void connect(const char* mode = "lazy") {
    make(mode);
    there_.says = {offer_reply(), connected()};
    ASSERT_TRUE(make_offer());
    ASSERT_TRUE(handover_->connect_pages());
  }
};

TEST_F(ImageTest, ArrivesAsFinal) {
  connect();
  wire::Image image;
  mutable_only_process(image).set_clock_offset_ns(77);
  mutable_only_process(image).add_threads()->set_id(12);
  std::string bytes = image.SerializeAsString();
  wire::RelayState relay;
  relay.set_epoch(3);
  ASSERT_TRUE(handover_->send_image(bytes, relay));
  EXPECT_EQ(bytes, image.SerializeAsString());  // It was lent.
  ASSERT_TRUE(there_.hears(Body::kOffer));
  const auto heard = there_.hear();
  ASSERT_TRUE(heard && heard->has_final());
  EXPECT_EQ(heard->final().image().SerializeAsString(), bytes);
  EXPECT_EQ(heard->final().relay().epoch(), 3U);
  wire::ControlMessage same;
  *same.mutable_final()->mutable_image() = image;
  *same.mutable_final()->mutable_relay() = relay;
  EXPECT_EQ(heard->SerializeAsString(), same.SerializeAsString());
}

TEST_F(ImageTest, ArrivesWholeWhenItIsLong) {
  connect();
  wire::Image image;
  mutable_only_process(image).add_threads()->add_pending_signals(
      std::string(std::size_t{3} << 20U, 'x'));
  std::string bytes = image.SerializeAsString();
  ASSERT_TRUE(handover_->send_image(bytes, {}));
  ASSERT_TRUE(there_.hears(Body::kOffer));
  const auto heard = there_.hear();
  ASSERT_TRUE(heard && heard->has_final());
  EXPECT_EQ(heard->final().image().ByteSizeLong(), bytes.size());
}

TEST_F(ImageTest, IsNotTaken) {
  connect();
  there_.cut_control();
  std::string image = "image";
  EXPECT_EQ(handover_->send_image(image, {}).error().code, ErrorCode::kPeerLost);
  EXPECT_EQ(image, "image");
}

TEST_F(ImageTest, FaultsAreAnsweredFromThenOn) {
  connect();
  ASSERT_TRUE(send_process());
  EXPECT_TRUE(there_.gets_page(memory_.start()));
  EXPECT_EQ(handover_->phase(), HandoverPhase::kOffered);
}

TEST_F(ImageTest, TheMemoryIsGone) {
  connect();
  memory_.gone = true;
  EXPECT_EQ(send_process().error().code, ErrorCode::kNotFound);
}

TEST_F(ImageTest, CannotBeRestored) {
  connect();
  ASSERT_TRUE(send_process());
  there_.say(failed());
  const auto done = handover_->await_restored();
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, ErrorCode::kRefused);
  EXPECT_NE(done.error().message().find("no room"), std::string::npos);
  EXPECT_FALSE(handover_->run_sent());
}

TEST_F(ImageTest, NothingIsHeardOfIt) {
  connect();
  ASSERT_TRUE(send_process());
  EXPECT_EQ(handover_->await_restored().error().code, ErrorCode::kRetry);
}

TEST_F(ImageTest, NobodyWantsItAnyMoreWhileAllItsPagesTravel) {
  restored_ms_ = 60'000;  // Which nobody waits for.
  connect();
  ASSERT_TRUE(send_process());
  is_wanted_ = false;
  EXPECT_EQ(handover_->await_restored().error().code, ErrorCode::kCancelled);
  EXPECT_FALSE(handover_->run_sent());
}

TEST_F(ImageTest, TheConnectionIsLostWhileItIsRestored) {
  connect();
  ASSERT_TRUE(send_process());
  there_.cut_control();
  EXPECT_EQ(handover_->await_restored().error().code, ErrorCode::kPeerLost);
}

TEST_F(ImageTest, IsAnsweredWithSomethingElse) {
  connect();
  ASSERT_TRUE(send_process());
  there_.say(running());
  EXPECT_EQ(handover_->await_restored().error().code, ErrorCode::kCorrupt);
}

TEST_F(ImageTest, BeforeRunNothingIsHandled) {
  connect();
  ASSERT_TRUE(send_process());
  there_.say(failed());
  handover_->handle();
  EXPECT_EQ(handover_->fate(), Fate::kUnknown);
  EXPECT_TRUE(waits_for().empty());
}

TEST_F(ImageTest, IsAbandoned) {
  connect();
  ASSERT_TRUE(send_process());
  handover_->abandon();
  EXPECT_TRUE(there_.urgent->is_closed());
  EXPECT_TRUE(there_.bulk->is_closed());
  EXPECT_TRUE(there_.hears(Body::kFinal) && !there_.hear());
  EXPECT_EQ(memory_.confirmed_pages, 0U);
  EXPECT_EQ(handover_->fate(), Fate::kUnknown);
}

class RunTest : public HandoverTest {};

TEST_F(RunTest, RunsThere) {
  hand_over();
  there_.say(running());
  pass(kMillisecond);
  ASSERT_TRUE(handover_->run({"signal", "another"}));
  EXPECT_EQ(handover_->fate(), Fate::kRuns);
  EXPECT_EQ(handover_->phase(), HandoverPhase::kServing);
  EXPECT_TRUE(waits_for().empty());
  ASSERT_TRUE(there_.hears(Body::kFinal));
  const auto heard = there_.hear();
  ASSERT_TRUE(heard && heard->has_run());
  EXPECT_EQ(heard->run().signals_size(), 2);
  EXPECT_EQ(heard->run().signals(0), "signal");
  ASSERT_EQ(noted_.size(), 2U);
  EXPECT_TRUE(noted_[1].confirmed() && !noted_[1].done());
}

TEST_F(RunTest, PushesOnlyFromThenOn) {
  hand_over();
  EXPECT_EQ(there_.bulk->receive(20), "");
  there_.say(running());
  ASSERT_TRUE(handover_->run({}));
  expect_pushes();
}

TEST_F(RunTest, InModeEagerAllPagesAreThereBefore) {
  hand_over("eager");
  there_.take_pushes();
  there_.say(running());
  ASSERT_TRUE(handover_->run({}));
  EXPECT_TRUE(handle_until([&] { return memory_.confirmed_pages == StandInMemory::kPages; }));
}

TEST_F(RunTest, NeverRunsAsTheDestinationSays) {
  hand_over();
  there_.say(failed());
  ASSERT_FALSE(handover_->run({}));
  EXPECT_TRUE(handover_->run_sent());
  EXPECT_EQ(handover_->fate(), Fate::kNeverRan);
  EXPECT_EQ(handover_->error().code, ErrorCode::kRefused);
  EXPECT_NE(handover_->error().message().find("no room"), std::string::npos);
  EXPECT_EQ(noted_.size(), 1U);
  EXPECT_EQ(memory_.left, 1);
  const std::size_t connections = there_.purposes.size();
  reconnect();
  EXPECT_EQ(there_.purposes.size(), connections);
  EXPECT_FALSE(handover_->done());
}

TEST_F(RunTest, IsInDoubtWhenNothingIsHeard) {
  hand_over();
  ASSERT_FALSE(handover_->run({}));
  EXPECT_EQ(handover_->fate(), Fate::kUnknown);
  EXPECT_EQ(handover_->phase(), HandoverPhase::kCut);
  EXPECT_EQ(handover_->error().code, ErrorCode::kRetry);
  EXPECT_EQ(handover_->outage().since_us(), now_us_);
  EXPECT_TRUE(waits_for().starts_with("tcp://there:1: ")) << waits_for();
}

TEST_F(RunTest, IsInDoubtWhenTheConnectionIsLost) {
  doubt();
  EXPECT_EQ(handover_->fate(), Fate::kUnknown);
  EXPECT_EQ(handover_->error().code, ErrorCode::kPeerLost);
  EXPECT_EQ(noted_.size(), 1U);
  EXPECT_EQ(handover_->poll_fd(), -1);
}

TEST_F(RunTest, IsInDoubtWhenTheAnswerIsNonsense) {
  hand_over();
  there_.say_nonsense();
  ASSERT_FALSE(handover_->run({}));
  EXPECT_EQ(handover_->fate(), Fate::kUnknown);
  EXPECT_EQ(handover_->error().code, ErrorCode::kCorrupt);
  EXPECT_EQ(handover_->phase(), HandoverPhase::kCut);
}

TEST_F(RunTest, IsInDoubtWhenTheAnswerIsAnotherOne) {
  hand_over();
  there_.say(connected());
  ASSERT_FALSE(handover_->run({}));
  EXPECT_EQ(handover_->fate(), Fate::kUnknown);
  EXPECT_EQ(handover_->error().code, ErrorCode::kCorrupt);
}

TEST_F(RunTest, GoesOnWhenItCannotBeNoted) {
  hand_over();
  notes_ = false;
  there_.say(running());
  EXPECT_TRUE(handover_->run({}));
  EXPECT_EQ(handover_->fate(), Fate::kRuns);
}

}  // namespace
}  // namespace migrate::handover_testing
