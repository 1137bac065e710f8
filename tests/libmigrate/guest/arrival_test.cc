// What an arrival says to a source whose offer it does not take: nothing is made for it, and it is
// told why.
#include "libmigrate/guest/arrival.h"

#include <gtest/gtest.h>

#include <future>
#include <string>
#include <string_view>

#include "libmigrate/links/tcp_socket.h"
#include "transport/memory_channel.h"

namespace migrate {
namespace {

class ArrivalTest : public testing::Test {
 protected:
  static wire::Offer offer() {
    wire::Offer offer;
    offer.set_process(std::string(16, 'p'));
    offer.set_mode("lazy");
    offer.set_token("token");
    return offer;
  }

  /// What the source hears when it has sent `message`.
  std::string told(const wire::ControlMessage& message) {
    auto ends = make_memory_channels().value();
    ControlChannel source(std::move(ends.first), "destination");
    EXPECT_TRUE(source.send(message));
    Arrival arrival(
        context_, {std::move(ends.second), PeerIdentity()}, SessionId(),
        [this](int) { ++workers_; }, world_);
    EXPECT_FALSE(arrival.take_in());
    EXPECT_EQ(workers_, 0);
    const auto answer = source.receive(0, 1000);
    return answer && answer->has_failed() ? answer->failed().reason() : std::string("nothing");
  }
  std::string told_of(const wire::Offer& offer) {
    wire::ControlMessage message;
    *message.mutable_offer() = offer;
    return told(message);
  }

  WorkerContext context_;
  const GuestWorld world_;
  int workers_ = 0;
};

TEST_F(ArrivalTest, AModeThatIsNotKnown) {
  wire::Offer wrong = offer();
  wrong.set_mode("hasty");
  const std::string reason = told_of(wrong);
  EXPECT_NE(reason.find("hasty"), std::string::npos) << reason;
  EXPECT_NE(reason.find("eager"), std::string::npos) << reason;  // What may come.
}

TEST_F(ArrivalTest, AProcessWithoutAnId) {
  wire::Offer wrong = offer();
  wrong.set_process("short");
  EXPECT_NE(told_of(wrong).find("id of the process"), std::string::npos);
}

// Nor does it get ours instead, as one would that tells of none.
TEST_F(ArrivalTest, ANetworkThatNoHomeHas) {
  wire::Offer wrong = offer();
  wire::HomeNetwork::Address& address = *wrong.mutable_network()->add_addresses();
  address.set_prefix(8);
  for (const std::string_view many : {"\xE0\x01\x01\x01", "\xFF\x02: multicast"}) {
    address.set_name(SocketName::of_address(many, 0).to_bytes());
    EXPECT_NE(told_of(wrong).find("the network of"), std::string::npos);
  }
}

TEST_F(ArrivalTest, AProcessThatNobodyCouldProveToKnow) {
  wire::Offer wrong = offer();
  wrong.clear_token();
  EXPECT_NE(told_of(wrong), "nothing");
}

TEST_F(ArrivalTest, ADraftThatIsNone) {
  EXPECT_NE(told_of(offer()), "nothing");
}

TEST_F(ArrivalTest, AnotherMessageThanAnOffer) {
  wire::ControlMessage run;
  run.mutable_run();
  EXPECT_NE(told(run), "nothing");
}

}  // namespace
}  // namespace migrate
