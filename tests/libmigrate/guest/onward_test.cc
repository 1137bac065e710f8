// Moves of a guest on, up to where Run was sent: what they are given, what is noted of them, who is
// told.
#include "libmigrate/guest/onward.h"

#include <unistd.h>

#include "libmigrate/state/registry.h"
#include "tests/libmigrate/guest/guest_fixture.h"

namespace migrate {
namespace {

class OnwardTest : public GuestFixture {
 protected:
  void SetUp() override {
    GuestFixture::SetUp();
    context_.own_address = {"tcp", "127.0.0.1", 7072};
    world_.attempt_move = [this](SourceMoveOptions options, SourceMove::Hooks hooks, double,
                                 EventSink& sink) -> std::unique_ptr<Departure> {
      options_ = std::move(options);
      hooks_ = std::move(hooks);
      if (!departure_) {
        sink.finish_failed(MIGRATE_REFUSED, make_error(ErrorCode::kRefused, "move"));
      }
      return std::move(departure_);
    };
    world_.adopt_move = [this](SourceMoveOptions options, SourceMove::Hooks, std::uint64_t area,
                               const wire::Outgoing&,
                               EventSink&) -> Result<std::unique_ptr<Departure>> {
      options_ = std::move(options);
      area_ = area;
      if (!departure_) {
        return fail(make_error(parked_error_, "take over"));
      }
      return std::move(departure_);
    };
    moves_.emplace(*guest_, ClockOffsets{.monotonic_ns = 5, .boottime_ns = 6}, world_);
  }

  static MoveRequest to(const std::string& destination) {
    MoveRequest request;
    request.destination = destination;
    request.plan = parse_offered_mode("demand").value();
    return request;
  }
  /// A sink, and who listens to it.
  static std::pair<EventSink, Client> client() {
    auto [letter, client] = Client::local("{}");
    return {EventSink(std::move(letter.fd)), std::move(client)};
  }
  void note_outgoing() {
    wire::Outgoing& outgoing = *guest_->record().noted().mutable_outgoing();
    outgoing.set_destination("tcp://127.0.0.1:7073");
    outgoing.set_mode("demand");
    guest_->record().file().mark().area = 77;
  }
  std::size_t rows() const {
    auto registry = Registry::open(directory_).value();
    return registry.list().value().size();
  }
  wire::CellSession saved() const {
    wire::CellSession noted;
    EXPECT_TRUE(noted.ParseFromString(guest_->record().file().load().value()));
    return noted;
  }

  GuestWorld world_;
  std::unique_ptr<Departure> departure_ = std::make_unique<StandInDeparture>(now_us_);
  ErrorCode parked_error_ = ErrorCode::kNotFound;
  SourceMoveOptions options_;
  SourceMove::Hooks hooks_;
  std::optional<std::uint64_t> area_;
  std::optional<Onward> moves_;
};

TEST_F(OnwardTest, NothingIsToBeDoneWhereItIs) {
  auto [sink, asking] = client();
  EXPECT_TRUE(moves_->answers_at_once(to("tcp://127.0.0.1:7072"), sink));
  EXPECT_EQ(asking.exit_code(), MIGRATE_DONE);
  EXPECT_EQ(asking.result()["state"], "already there");
}

TEST_F(OnwardTest, WhoWaitsForItsEndIsNotAnsweredAtOnce) {
  auto [sink, asking] = client();
  MoveRequest request = to("tcp://127.0.0.1:7072");
  request.wait = MoveWait::kExit;
  EXPECT_FALSE(moves_->answers_at_once(request, sink));
  EXPECT_FALSE(moves_->answers_at_once(to("tcp://127.0.0.1:7073"), sink));
  EXPECT_EQ(asking.exit_code(), -1);
}

TEST_F(OnwardTest, WhatIsNoAddressIsSaidAtOnce) {
  auto [sink, asking] = client();
  EXPECT_TRUE(moves_->answers_at_once(to("carrier pigeon://b"), sink));
  EXPECT_EQ(asking.exit_code(), MIGRATE_USAGE);
  auto [other_sink, other] = client();
  EXPECT_EQ(moves_->begin(to("carrier pigeon://b"), std::move(other_sink)), nullptr);
  EXPECT_EQ(other.exit_code(), MIGRATE_FAILED);
}

TEST_F(OnwardTest, AMoveIsOfThisProcess) {
  guest_->record().noted().set_token("token");
  guest_->record().noted().set_home("tcp://127.0.0.1:7071");
  auto [sink, asking] = client();
  MoveRequest request = to("tcp://127.0.0.1:7073");
  request.wait = MoveWait::kDone;
  const auto onward = moves_->begin(request, std::move(sink));
  ASSERT_NE(onward, nullptr);
  EXPECT_NE(onward->move, nullptr);
  EXPECT_EQ(onward->wait, MoveWait::kDone);
  EXPECT_EQ(options_.pid, process_);
  EXPECT_EQ(options_.token, "token");
  EXPECT_EQ(options_.command, "subject");
  EXPECT_EQ(options_.home.port, 7071);
  EXPECT_EQ(options_.destination.port, 7073);
  EXPECT_EQ(options_.request.plan.word, "demand");
  EXPECT_EQ(options_.host_clocks.monotonic_ns, 5);
  EXPECT_TRUE(options_.known.own_userfaultfd);
  EXPECT_EQ(asking.exit_code(), -1);  // It hears more.
}

TEST_F(OnwardTest, WhatCameToNothingWasTold) {
  departure_.reset();
  auto [sink, asking] = client();
  EXPECT_EQ(moves_->begin(to("tcp://127.0.0.1:7073"), std::move(sink)), nullptr);
  EXPECT_EQ(asking.exit_code(), MIGRATE_REFUSED);
}

// A worker that takes over must find the move, or the process would run in two places.
TEST_F(OnwardTest, AMoveIsNotedBeforeTheProcessIsFrozen) {
  const auto onward = moves_->begin(to("tcp://127.0.0.1:7073"), {});
  wire::Outgoing outgoing;
  outgoing.set_session(std::string(16, 'n'));
  ASSERT_TRUE(hooks_.on_outgoing(outgoing));
  EXPECT_EQ(saved().outgoing().session(), std::string(16, 'n'));
  hooks_.on_area(4711);
  EXPECT_EQ(guest_->record().file().mark().area, 4711U);
}

TEST_F(OnwardTest, ItsRelayIsFrozenWithIt) {
  const auto onward = moves_->begin(to("tcp://127.0.0.1:7073"), {});
  const wire::RelayState state = hooks_.freeze_relay(wire::Image());
  EXPECT_EQ(state.epoch(), guest_->home().relay()->epoch() + 1);
  EXPECT_TRUE(saved().has_relay());
  hooks_.thaw_relay();
}

TEST_F(OnwardTest, NothingIsGoneOnWithIfNothingIsNoted) {
  EXPECT_EQ(moves_->adopt(), nullptr);
  EXPECT_FALSE(area_);
}

TEST_F(OnwardTest, ANotedMoveIsGoneOnWith) {
  note_outgoing();
  const auto onward = moves_->adopt();
  ASSERT_NE(onward, nullptr);
  EXPECT_NE(onward->move, nullptr);
  EXPECT_EQ(area_, 77U);
  EXPECT_EQ(options_.destination.port, 7073);
  EXPECT_EQ(options_.request.plan.word, "demand");
  EXPECT_FALSE(onward->sink.open());
  EXPECT_TRUE(guest_->record().noted().has_outgoing());
}

TEST_F(OnwardTest, ANotedMoveThatWasNotDecidedIsForgotten) {
  departure_.reset();
  for (const ErrorCode code : {ErrorCode::kNotFound, ErrorCode::kSystem}) {
    parked_error_ = code;
    note_outgoing();
    EXPECT_EQ(moves_->adopt(), nullptr);
    EXPECT_FALSE(guest_->record().noted().has_outgoing());
    EXPECT_EQ(rows(), 1U);
  }
}

TEST_F(OnwardTest, OfOneThatHasLeftNoRowStays) {
  departure_.reset();
  guest_->record().enter(GuestPhase::kLeaving);
  EXPECT_EQ(rows(), 1U);
  note_outgoing();
  EXPECT_EQ(moves_->adopt(), nullptr);
  EXPECT_EQ(rows(), 0U);
}

TEST_F(OnwardTest, ADestinationThatIsNoAddressIsNotAskedOf) {
  auto [sink, asking] = client();
  CheckRequest request;
  request.destination = "carrier pigeon://b";
  moves_->check(request, std::move(sink));
  EXPECT_EQ(asking.exit_code(), MIGRATE_USAGE);
}

}  // namespace
}  // namespace migrate
