// How both sides of a move agree on a transport of pages, over one of the test's own.
#include "libmigrate/move/page_transport.h"

#include <gtest/gtest.h>
#include <sys/eventfd.h>

#include <cstring>
#include <deque>
#include <optional>
#include <utility>

#include "base/unique_fd.h"
#include "transport/memory_channel.h"

namespace migrate::test {
namespace {

constexpr SessionId kSession = {std::byte{1}, std::byte{2}};
constexpr std::uint16_t kPort = 4711;

/// Who has connected and was not accepted yet.
struct Knock {
  PageGreeting greeting;
  std::unique_ptr<Channel> channel;
};
/// What stands for the network of the stand-in, which tests set and look at.
struct StandInWire {
  std::deque<Knock> knocks;
  std::optional<Error> listen_error;
  std::optional<Error> connect_error;
  std::vector<std::string> listened_on;
  std::vector<std::string> left_from;
  std::vector<int> timeouts_ms;
};
StandInWire cable;

class StandInListener final : public PageListener {
 public:
  StandInListener(const SessionId& session, const PageToken& token)
      : session_(session), token_(token), events_(::eventfd(0, EFD_CLOEXEC)) {}

  Result<Accepted> accept(int /*timeout_ms*/) override {
    if (cable.knocks.empty()) {
      return fail(make_error(ErrorCode::kRetry, "accept"));
    }
    Knock knock = std::move(cable.knocks.front());
    cable.knocks.pop_front();
    if (knock.greeting.session != session_ || knock.greeting.token != token_) {
      return fail(make_error(ErrorCode::kRefused, "accept"));
    }
    return Accepted{knock.greeting.purpose, std::move(knock.channel)};
  }
  int fd() const override { return events_.get(); }
  std::uint16_t port() const override { return kPort; }

 private:
  const SessionId session_;
  const PageToken token_;
  UniqueFd events_;
};

Result<std::unique_ptr<PageListener>> listen(const std::string& host, const SessionId& session,
                                             const PageToken& token) {
  cable.listened_on.push_back(host);
  if (cable.listen_error) {
    return fail(*cable.listen_error);
  }
  return std::make_unique<StandInListener>(session, token);
}

Result<std::unique_ptr<Channel>> connect(const Address& address, const PageGreeting& greeting,
                                         const std::string& source_host, int timeout_ms) {
  cable.left_from.push_back(source_host);
  cable.timeouts_ms.push_back(timeout_ms);
  if (cable.connect_error) {
    return fail(*cable.connect_error);
  }
  EXPECT_EQ(address.port, kPort);
  auto [near, far] = std::move(make_memory_channels()).value();
  cable.knocks.push_back({greeting, std::move(far)});
  return std::move(near);
}

PageTransport stand_in(const char* word) {
  return {.word = word,
          .name = "the stand-in",
          .missing = nullptr,
          .check = [](const Address&) { return Result<void>(); },
          .problem = [](const std::string&) { return std::string(); },
          .ports = []() { return Result<std::vector<PagePort>>(); },
          .listen = listen,
          .connect = connect};
}

/// Addresses have schemes of the table only: the stand-in has the first one's word.
class PageRoutes : public testing::Test {
 protected:
  PageRoutes() {
    cable = {};
    source_.page_addresses = {{&transport_, "10.0.0.1"}};
    destination_.page_addresses = {{&transport_, "10.0.0.2"}};
  }

  static PageTransportChoice any() { return {}; }
  PageTransportChoice only() const { return {.is_auto = false, .only = &transport_}; }

  /// The source asks, and the destination answers.
  Result<void> agree(PageRoute& route) {
    wire::Offer offer;
    for (const std::string& word : route.wanted()) {
      offer.add_page_transports(word);
    }
    reply_.Clear();
    listener_ = listen_for_pages(destination_, kSession, offer, reply_);
    return route.settle(kSession, reply_);
  }

  const PageTransport transport_ = stand_in(page_transports().front()->word);
  const PageTransport unknown_ = stand_in("pigeon");
  WorkerContext source_;
  WorkerContext destination_;
  wire::OfferReply reply_;
  std::unique_ptr<PageListener> listener_;
};

TEST_F(PageRoutes, LeadWhereBothHostsListen) {
  PageRoute route(any(), source_);
  ASSERT_TRUE(agree(route));
  ASSERT_NE(listener_, nullptr);
  EXPECT_EQ(cable.listened_on, std::vector<std::string>{"10.0.0.2"});
  EXPECT_STREQ(route.word(), transport_.word);
  for (const Purpose purpose : {Purpose::kUrgent, Purpose::kBulk}) {
    auto near = route.connect(purpose);
    ASSERT_TRUE(near && *near);
    auto accepted = listener_->accept(0);
    ASSERT_TRUE(accepted) << accepted.error().message();
    EXPECT_EQ(accepted->purpose, purpose);
    ASSERT_TRUE((*near)->send_one(std::as_bytes(std::span("page", 4))));
    const auto message = accepted->channel->receive(0, 1000);
    ASSERT_TRUE(message);
    EXPECT_EQ(std::memcmp(message->data(), "page", 4), 0);
  }
  EXPECT_EQ(cable.left_from, (std::vector<std::string>{"10.0.0.1", "10.0.0.1"}));
}

TEST_F(PageRoutes, HaveASecretForEachSession) {
  PageRoute route(any(), source_);
  ASSERT_TRUE(agree(route));
  const std::string first = reply_.pages().token();
  ASSERT_TRUE(agree(route));
  EXPECT_NE(reply_.pages().token(), first);
}

TEST_F(PageRoutes, AreNotAskedForUnlessBothListen) {
  source_.page_addresses.clear();
  PageRoute route(any(), source_);
  EXPECT_TRUE(route.wanted().empty());
  ASSERT_TRUE(agree(route));
  auto channel = route.connect(Purpose::kUrgent);
  ASSERT_TRUE(channel);
  EXPECT_EQ(*channel, nullptr);
  EXPECT_STREQ(route.word(), "tcp");
}

TEST_F(PageRoutes, AreNotAskedForIfTheDaemonsConnectionsAreWanted) {
  EXPECT_TRUE(PageRoute({.is_auto = false, .only = nullptr}, source_).wanted().empty());
}

// A host needs not listen itself to connect.
TEST_F(PageRoutes, AreAskedForByWhoMustHaveThem) {
  source_.page_addresses.clear();
  PageRoute route(only(), source_);
  EXPECT_EQ(route.wanted(), std::vector<std::string>{transport_.word});
  ASSERT_TRUE(agree(route));
  ASSERT_TRUE(route.connect(Purpose::kUrgent).value());
  EXPECT_EQ(cable.left_from, std::vector<std::string>{""});
}

TEST_F(PageRoutes, LeaveFromAnyAddressWhereWorkersListenOnAll) {
  source_.page_addresses[0].host = "0.0.0.0";
  destination_.page_addresses[0].host = "::";
  destination_.own_address.host = "10.0.0.9";
  PageRoute route(any(), source_);
  ASSERT_TRUE(agree(route));
  EXPECT_EQ(Address::parse(reply_.pages().address()).value().host, "10.0.0.9");
  ASSERT_TRUE(route.connect(Purpose::kUrgent).value());
  EXPECT_EQ(cable.left_from, std::vector<std::string>{""});
}

TEST_F(PageRoutes, FallBackOrFailWhereTheDestinationDoesNotListen) {
  destination_.page_addresses.clear();
  PageRoute route(any(), source_);
  ASSERT_TRUE(agree(route));
  EXPECT_EQ(listener_, nullptr);
  EXPECT_EQ(route.connect(Purpose::kUrgent).value(), nullptr);

  PageRoute must(only(), source_);
  const auto settled = agree(must);
  ASSERT_FALSE(settled);
  EXPECT_EQ(settled.error().code, ErrorCode::kUnsupported);
  EXPECT_NE(settled.error().message().find("--listen"), std::string::npos);
}

TEST_F(PageRoutes, TellWhyTheDestinationCannotListen) {
  cable.listen_error = make_error(ErrorCode::kSystem, "listen", "", "the cable is cut");
  PageRoute must(only(), source_);
  const auto settled = agree(must);
  ASSERT_FALSE(settled);
  EXPECT_NE(settled.error().message().find("the cable is cut"), std::string::npos);
  EXPECT_FALSE(reply_.has_pages());
}

TEST_F(PageRoutes, GoByTheFirstThatTheDestinationHas) {
  source_.page_addresses.insert(source_.page_addresses.begin(), {&unknown_, "10.0.0.1"});
  PageRoute route(any(), source_);
  EXPECT_EQ(route.wanted(), (std::vector<std::string>{"pigeon", transport_.word}));
  ASSERT_TRUE(agree(route));
  ASSERT_NE(listener_, nullptr);
  EXPECT_STREQ(route.word(), transport_.word);
  EXPECT_TRUE(reply_.no_pages().empty());
}

TEST_F(PageRoutes, TrustNoAddressThatCannotBe) {
  const std::string good = std::string(transport_.word) + "://10.0.0.2:4711";
  for (const auto& [address, token_bytes] : {std::pair<std::string, std::size_t>{good, 15},
                                             {good, 17},
                                             {good, 0},
                                             {"tcp://10.0.0.2:4711", 16},
                                             {"", 16},
                                             {std::string(5000, ':'), 16}}) {
    wire::OfferReply reply;
    reply.mutable_pages()->set_address(address);
    reply.mutable_pages()->set_token(std::string(token_bytes, 'x'));
    PageRoute route(any(), source_);
    EXPECT_TRUE(route.settle(kSession, reply));
    EXPECT_EQ(route.connect(Purpose::kUrgent).value(), nullptr);
    PageRoute must(only(), source_);
    EXPECT_FALSE(must.settle(kSession, reply)) << address;
  }
  EXPECT_TRUE(cable.knocks.empty());
}

// Nobody asked for it: what a destination says then counts for nothing.
TEST_F(PageRoutes, AreNotTakenFromADestinationUnasked) {
  wire::OfferReply reply;
  reply.mutable_pages()->set_address(std::string(transport_.word) + "://10.0.0.2:4711");
  reply.mutable_pages()->set_token(std::string(16, 'x'));
  PageRoute route({.is_auto = false, .only = nullptr}, source_);
  ASSERT_TRUE(route.settle(kSession, reply));
  EXPECT_EQ(route.connect(Purpose::kUrgent).value(), nullptr);
}

TEST_F(PageRoutes, GiveWayIfTheyCannotConnectUnlessTheyMust) {
  PageRoute route(any(), source_);
  ASSERT_TRUE(agree(route));
  PageRoute must(only(), source_);
  ASSERT_TRUE(agree(must));
  cable.connect_error = make_error(ErrorCode::kPeerLost, "connect");
  EXPECT_EQ(route.connect(Purpose::kUrgent).value(), nullptr);
  EXPECT_STREQ(route.word(), "tcp");
  EXPECT_EQ(must.connect(Purpose::kUrgent).error().code, ErrorCode::kPeerLost);

  // Once the process runs there, any connection is better than none, and is to come soon.
  must.allow_daemons();
  EXPECT_EQ(must.connect(Purpose::kUrgent).value(), nullptr);
  ASSERT_EQ(cable.timeouts_ms.size(), 3U);
  EXPECT_LT(cable.timeouts_ms[2], cable.timeouts_ms[1]);
}

}  // namespace
}  // namespace migrate::test
