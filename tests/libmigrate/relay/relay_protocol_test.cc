// Peers that break the protocol, and state that cannot be.
#include <chrono>
#include <thread>

#include "libmigrate/relay/home_enquiry.h"
#include "tests/libmigrate/relay/relay_world.h"

namespace migrate::relay_testing {
namespace {

void send(Channel& channel, const wire::RelayMessage& message) {
  const std::string bytes = message.SerializeAsString();
  ASSERT_TRUE(channel.send_one(std::as_bytes(std::span(bytes))));
}

class RelayProtocol : public RelayWorld {
 protected:
  /// A link to home whose other end the test speaks itself.
  void start_as_guest() {
    start_usual_home();
    auto channels = make_memory_channels();
    ASSERT_TRUE(channels);
    peer = std::move(channels->first);
    deputy_relay->attach(std::move(channels->second));
  }

  wire::RelayMessage resume(std::uint64_t epoch) {
    wire::RelayMessage message;
    message.mutable_resume()->set_epoch(epoch);
    message.mutable_resume()->set_attempt(1);
    message.mutable_resume()->set_next_signal(1);
    for (const RelayStreamSpec& spec : specs) {
      message.mutable_resume()->add_streams()->set_id(spec.id);
    }
    return message;
  }
  void activate(std::uint64_t epoch) {
    wire::RelayMessage message;
    message.mutable_activate()->set_epoch(epoch);
    send(*peer, message);
  }

  ErrorCode home_says() {
    for (int i = 0; i < 50; ++i) {
      if (const Result<void> done = deputy_relay->handle(); !done) {
        return done.error().code;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return ErrorCode::kRetry;
  }

  /// What home says to one message on an active link.
  ErrorCode home_says_to(const wire::RelayMessage& message) {
    start_as_guest();
    send(*peer, resume(1));
    activate(1);
    EXPECT_EQ(home_says(), ErrorCode::kRetry);
    EXPECT_TRUE(deputy_relay->connected());
    send(*peer, message);
    const ErrorCode code = home_says();
    EXPECT_EQ(deputy_relay->connected(), code == ErrorCode::kRetry);
    return code;
  }

  std::unique_ptr<Channel> peer;
};

wire::RelayMessage data(std::uint32_t stream, std::uint64_t offset, std::size_t size) {
  wire::RelayMessage message;
  message.mutable_data()->set_stream(stream);
  message.mutable_data()->set_offset(offset);
  message.mutable_data()->set_content(std::string(size, 'x'));
  return message;
}

wire::RelayMessage accepted(std::uint32_t stream, const std::string& local,
                            const std::string& peer) {
  wire::RelayMessage message;
  message.mutable_accepted()->set_stream(stream);
  message.mutable_accepted()->set_listener(9);
  message.mutable_accepted()->set_local(local);
  message.mutable_accepted()->set_peer(peer);
  return message;
}

TEST_F(RelayProtocol, HomeKeepsTheStreamsThatTheProcessHad) {
  wire::RelayMessage message;
  message.mutable_retired()->set_stream(kOut);
  EXPECT_EQ(home_says_to(message), ErrorCode::kRetry);
  EXPECT_EQ(deputy_relay->note().streams_size(), 3);
  message.mutable_unlistened()->set_listener(kOut);
  EXPECT_EQ(home_says_to(message), ErrorCode::kRetry);
  EXPECT_TRUE(closed.empty());
}

TEST_F(RelayProtocol, HomeRefusesNewsOfStreamsThatItHasNotAccepted) {
  start_as_guest();
  wire::RelayMessage message = resume(1);
  message.mutable_resume()->set_next_accepted(1000);
  send(*peer, message);
  activate(1);
  EXPECT_EQ(home_says(), ErrorCode::kCorrupt);
}

TEST_F(RelayProtocol, HomeRefusesAPlaceThatIsNoAddress) {
  for (const std::string& host : {std::string("\x1b[2J"), std::string(301, 'a')}) {
    wire::RelayMessage message;
    message.mutable_located()->set_host(host);
    message.mutable_located()->set_session("11");
    EXPECT_EQ(home_says_to(message), ErrorCode::kCorrupt);
  }
}

TEST_F(RelayProtocol, HomeRefusesAnUnknownStream) {
  EXPECT_EQ(home_says_to(data(99, 0, 1)), ErrorCode::kCorrupt);
}

TEST_F(RelayProtocol, HomeRefusesAGap) {
  EXPECT_EQ(home_says_to(data(kOut, 1, 1)), ErrorCode::kCorrupt);
}

TEST_F(RelayProtocol, HomeRefusesTooMuchAtOnce) {
  EXPECT_EQ(home_says_to(data(kOut, 0, kRelayChunkBytes + 1)), ErrorCode::kCorrupt);
}

TEST_F(RelayProtocol, HomeRefusesOutputOfAnInputStream) {
  EXPECT_EQ(home_says_to(data(kIn, 0, 1)), ErrorCode::kCorrupt);
}

TEST_F(RelayProtocol, HomeTakesWhatIsRight) {
  EXPECT_EQ(home_says_to(data(kOut, 0, 1)), ErrorCode::kRetry);
}

TEST_F(RelayProtocol, HomeRefusesMoreThanTheWindow) {
  start_as_guest();
  send(*peer, resume(1));
  activate(1);
  for (std::uint64_t i = 0; i < 8; ++i) {
    send(*peer, data(kOut, i * kRelayChunkBytes, kRelayChunkBytes));
  }
  EXPECT_EQ(home_says(), ErrorCode::kCorrupt);
}

TEST_F(RelayProtocol, HomeRefusesToAcknowledgeTheUnsent) {
  wire::RelayMessage message;
  message.mutable_ack()->set_stream(kIn);
  message.mutable_ack()->set_offset(1);
  EXPECT_EQ(home_says_to(message), ErrorCode::kCorrupt);
  message.mutable_signal_ack()->set_number(1);
  EXPECT_EQ(home_says_to(message), ErrorCode::kCorrupt);
}

TEST_F(RelayProtocol, HomeRefusesDataBeforeTheLinkIsActive) {
  start_as_guest();
  send(*peer, resume(1));
  send(*peer, data(kOut, 0, 1));
  EXPECT_EQ(home_says(), ErrorCode::kCorrupt);
}

TEST_F(RelayProtocol, HomeRefusesToResumeInTheFuture) {
  start_as_guest();
  wire::RelayMessage message = resume(1);
  message.mutable_resume()->mutable_streams(0)->set_in_acked(1);
  message.mutable_resume()->mutable_streams(0)->set_in_next(1);
  send(*peer, message);
  activate(1);
  EXPECT_EQ(home_says(), ErrorCode::kCorrupt);
  EXPECT_FALSE(deputy_relay->connected());
}

TEST_F(RelayProtocol, HomeKeepsTheNewerPlace) {
  start_as_guest();
  send(*peer, resume(3));
  activate(3);
  EXPECT_EQ(home_says(), ErrorCode::kRetry);
  auto channels = make_memory_channels();
  ASSERT_TRUE(channels);
  const std::unique_ptr<Channel> newer = std::exchange(peer, std::move(channels->first));
  deputy_relay->attach(std::move(channels->second));
  send(*peer, resume(2));
  activate(2);
  EXPECT_EQ(home_says(), ErrorCode::kRetry);
  EXPECT_EQ(deputy_relay->epoch(), 3U);
  EXPECT_TRUE(deputy_relay->connected());
}

// A place that asks, and whether it has been told of a later one by now.
TEST_F(RelayProtocol, HomeTellsOfALaterPlace) {
  start_as_guest();
  send(*peer, resume(1));
  activate(1);
  EXPECT_EQ(home_says(), ErrorCode::kRetry);
  auto asking = make_memory_channels();
  auto later = make_memory_channels();
  ASSERT_TRUE(asking);
  ASSERT_TRUE(later);
  deputy_relay->attach(std::move(asking->second));
  HomeEnquiry enquiry(std::move(asking->first), 1);
  EXPECT_EQ(home_says(), ErrorCode::kRetry);
  EXPECT_EQ(enquiry.answer().value(), HomeEnquiry::Answer::kNone);

  const std::unique_ptr<Channel> older = std::exchange(peer, std::move(later->first));
  deputy_relay->attach(std::move(later->second));
  send(*peer, resume(2));
  EXPECT_EQ(home_says(), ErrorCode::kRetry);
  EXPECT_EQ(enquiry.answer().value(), HomeEnquiry::Answer::kNone)
      << "a later place that does not run it";
  activate(2);
  EXPECT_EQ(home_says(), ErrorCode::kRetry);
  EXPECT_EQ(enquiry.answer().value(), HomeEnquiry::Answer::kLaterPlace);
  EXPECT_TRUE(deputy_relay->connected());
}

TEST_F(RelayProtocol, AnEnquiryTakesNothingElse) {
  auto channels = make_memory_channels();
  ASSERT_TRUE(channels);
  HomeEnquiry enquiry(std::move(channels->first), 5);
  wire::RelayMessage message;
  message.mutable_resumed()->set_epoch(5);
  send(*channels->second, message);
  const auto told = enquiry.answer();
  ASSERT_FALSE(told);
  EXPECT_EQ(told.error().code, ErrorCode::kCorrupt);
}

TEST_F(RelayProtocol, ThePlaceRefusesWhatHomeMayNotSend) {
  start_usual_home();
  const std::string four = SocketName::loopback(7).to_bytes();
  const std::string six = SocketName::none_of(AF_INET6).to_bytes();
  const std::vector<wire::RelayMessage> wrong = {data(kIn, 5, 1),
                                                 data(kOut, 0, 1),
                                                 data(99, 0, 1),
                                                 resume(1),
                                                 accepted(3, "no address", four),
                                                 accepted(3, four, six),
                                                 accepted(kBoth, four, four)};
  for (const wire::RelayMessage& message : wrong) {
    Place there = make_place(make_relay_state(specs));
    auto channels = make_memory_channels();
    ASSERT_TRUE(channels);
    there.relay->attach(std::move(channels->first));
    there.relay->activate();
    wire::RelayMessage resumed;
    resumed.mutable_resumed()->set_epoch(1);
    for (const RelayStreamSpec& spec : specs) {
      resumed.mutable_resumed()->add_streams()->set_id(spec.id);
    }
    send(*channels->second, resumed);
    ASSERT_TRUE(there.relay->handle());
    ASSERT_TRUE(there.relay->established());
    send(*channels->second, message);
    const Result<void> done = there.relay->handle();
    ASSERT_FALSE(done);
    EXPECT_EQ(done.error().code, ErrorCode::kCorrupt);
    EXPECT_FALSE(there.relay->connected());
  }
}

TEST_F(RelayProtocol, RefusesStateThatCannotBe) {
  wire::RelayState state;
  EXPECT_FALSE(GuestRelay::create(state, {}));
  state.set_epoch(1);
  state.set_next_signal(1);
  EXPECT_TRUE(GuestRelay::create(state, {}));
  state.add_streams()->set_directions(4);
  EXPECT_FALSE(GuestRelay::create(state, {}));
  state.mutable_streams(0)->set_directions(1);
  *state.add_streams() = state.streams(0);
  EXPECT_FALSE(GuestRelay::create(state, {}));
}

TEST_F(RelayProtocol, RefusesASignalOfTheWrongSize) {
  start_usual_home();
  EXPECT_FALSE(deputy_relay->send_signal(std::array<std::byte, 12>{}));
}

}  // namespace
}  // namespace migrate::relay_testing
