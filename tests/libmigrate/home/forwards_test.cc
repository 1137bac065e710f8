#include "libmigrate/home/forwards.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>

#include <array>
#include <deque>

#include "libmigrate/requests/json_member.h"
#include "transport/memory_channel.h"

namespace migrate {
namespace {

using nlohmann::json;

/// A client of the local socket, who hears one event a packet.
class Client {
 public:
  explicit Client(UniqueFd socket) : socket_(std::move(socket)) {}

  /// What came next; null if nothing did.
  json heard() const {
    std::array<char, 4096> text{};
    const ssize_t count = ::recv(socket_.get(), text.data(), text.size(), MSG_DONTWAIT);
    return count <= 0
               ? json()
               : parse_object(std::string_view(text.data(), static_cast<std::size_t>(count)));
  }
  void hang_up() { socket_.reset(); }

 private:
  UniqueFd socket_;
};

/// A place: the other end of a channel, whose messages are JSON.
class Place {
 public:
  explicit Place(std::unique_ptr<Channel> channel) : channel_(std::move(channel)) {}

  void say(const json& message) {
    const std::string text = message.dump();
    EXPECT_TRUE(channel_->send_one(std::as_bytes(std::span(text))));
  }
  void hang_up() { channel_.reset(); }

 private:
  std::unique_ptr<Channel> channel_;
};

class ForwardsTest : public testing::Test {
 protected:
  Result<std::unique_ptr<Channel>> send(const Whereabouts& where, const json& request) {
    if (unreachable_) {
      return fail(make_error(ErrorCode::kPeerLost, "connect to", where.host));
    }
    auto [ours, theirs] = make_memory_channels().value();
    places_.emplace_back(std::move(theirs));
    requests_.push_back({{"host", where.host}, {"session", where.session}, {"request", request}});
    return std::move(ours);
  }

  void SetUp() override { ::signal(SIGPIPE, SIG_IGN); }

  Client client(const json& request) {
    std::array<int, 2> ends{};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()), 0);
    forwards_.pass_on(request, EventSink(UniqueFd(ends[0])), where_, MIGRATE_FAILED);
    return Client(UniqueFd(ends[1]));
  }

  void pump(bool has_ended = false) {
    for (EndClient& each : forwards_.pump(where_, has_ended)) {
      waiting_.push_back(std::move(each));
    }
  }

  Whereabouts where_{"b:7070", "11"};
  bool unreachable_ = false;
  std::int64_t now_us_ = 1000;
  std::deque<Place> places_;
  std::vector<json> requests_;
  std::vector<EndClient> waiting_;
  Forwards forwards_{
      "sleep 9",
      [this](const Whereabouts& where, const json& request) { return send(where, request); },
      [this] { return now_us_; }};
};

TEST_F(ForwardsTest, PassesARequestOnAndItsEventsBack) {
  Client client = this->client({{"command", "check"}});
  ASSERT_EQ(requests_.size(), 1U);
  EXPECT_EQ(requests_[0]["host"], "b:7070");
  EXPECT_EQ(requests_[0]["session"], "11");
  EXPECT_EQ(requests_[0]["request"]["command"], "check");
  places_[0].say({{"event", "phase"}, {"phase", "inspect"}});
  places_[0].say({{"event", "result"}, {"exit", 3}, {"movable", false}});
  pump();
  EXPECT_EQ(client.heard()["phase"], "inspect");
  const json result = client.heard();
  EXPECT_EQ(result["exit"], 3);
  EXPECT_EQ(result["movable"], false);
  EXPECT_TRUE(forwards_.empty());
  EXPECT_EQ(where_.host, "b:7070");
}

TEST_F(ForwardsTest, WhoCannotBeReachedIsSaidAtOnce) {
  unreachable_ = true;
  Client client = this->client({{"command", "move"}});
  EXPECT_EQ(client.heard()["exit"], MIGRATE_FAILED);
  EXPECT_TRUE(forwards_.empty());
}

TEST_F(ForwardsTest, AMoveOnwardsChangesThePlace) {
  Client client = this->client({{"command", "move"}, {"wait", "resumed"}});
  places_[0].say({{"event", "result"}, {"exit", 0}, {"destination", "c:7070"}, {"id", "22"}});
  pump();
  EXPECT_EQ(where_.host, "c:7070");
  EXPECT_EQ(where_.session, "22");
  EXPECT_EQ(client.heard()["exit"], 0);
  EXPECT_TRUE(waiting_.empty());
}

TEST_F(ForwardsTest, AMoveThatFailedDoesNot) {
  Client client = this->client({{"command", "move"}});
  places_[0].say({{"event", "result"}, {"exit", 4}, {"destination", "c:7070"}, {"id", "22"}});
  pump();
  EXPECT_EQ(where_.host, "b:7070");
}

TEST_F(ForwardsTest, NewsThatAreOlderThanThePlaceAreNone) {
  Client client = this->client({{"command", "move"}});
  where_ = {"d:7070", "33"};  // It has called from there meanwhile.
  places_[0].say({{"event", "result"}, {"exit", 0}, {"destination", "c:7070"}, {"id", "22"}});
  pump();
  EXPECT_EQ(where_.host, "d:7070");
  EXPECT_EQ(where_.session, "33");
}

TEST_F(ForwardsTest, WhoWaitsForTheEndIsKept) {
  Client client = this->client({{"command", "move"}, {"wait", "exit"}});
  places_[0].say({{"event", "result"}, {"exit", 0}, {"destination", "c:7070"}, {"id", "22"}});
  pump();
  ASSERT_EQ(waiting_.size(), 1U);
  EXPECT_EQ(client.heard(), nullptr);
  waiting_[0].client.finish(MIGRATE_DONE, {{"exit_status", 0}});
  EXPECT_EQ(client.heard()["exit_status"], 0);
}

TEST_F(ForwardsTest, WhoWaitsForTheEndHearsOfAFailureAtOnce) {
  Client client = this->client({{"command", "move"}, {"wait", "exit"}});
  places_[0].say({{"event", "result"}, {"exit", 3}});
  pump();
  EXPECT_TRUE(waiting_.empty());
  EXPECT_EQ(client.heard()["exit"], 3);
}

TEST_F(ForwardsTest, ARequestGoesAfterAProcessThatHasMovedOn) {
  Client client = this->client({{"command", "check"}});
  places_[0].hang_up();
  pump();
  pump();
  EXPECT_EQ(places_.size(), 1U);  // No news of it yet.
  where_ = {"c:7070", "22"};
  pump();
  ASSERT_EQ(places_.size(), 2U);
  EXPECT_EQ(requests_[1]["host"], "c:7070");
  places_[1].say({{"event", "result"}, {"exit", 0}});
  pump();
  EXPECT_EQ(client.heard()["exit"], 0);
}

TEST_F(ForwardsTest, ARequestGoesAfterAProcessThatIsLeaving) {
  Client client = this->client({{"command", "move"}});
  const json not_now = {
      {"event", "result"}, {"exit", 4}, {"error", {{"code", "try again"}, {"message", "later"}}}};
  places_[0].say(not_now);
  pump();
  EXPECT_EQ(client.heard(), nullptr);
  where_ = {"c:7070", "22"};
  pump();
  ASSERT_EQ(places_.size(), 2U);
  places_[1].say({{"event", "result"}, {"exit", 0}});
  pump();
  EXPECT_EQ(client.heard()["exit"], 0);
}

TEST_F(ForwardsTest, WhoIsToldNotNowAndHearsNoNewsGetsThatAnswer) {
  Client client = this->client({{"command", "move"}});
  places_[0].say(
      {{"event", "result"}, {"exit", 4}, {"error", {{"code", "try again"}, {"message", "later"}}}});
  pump();
  now_us_ += 3'000'001;
  pump();
  EXPECT_EQ(client.heard()["error"]["message"], "later");
  EXPECT_TRUE(forwards_.empty());
}

TEST_F(ForwardsTest, ARequestThatHadBegunIsNotSentTwice) {
  Client client = this->client({{"command", "move"}});
  places_[0].say({{"event", "phase"}, {"phase", "freeze"}});
  pump();
  EXPECT_EQ(client.heard()["phase"], "freeze");
  places_[0].hang_up();
  pump();
  where_ = {"c:7070", "22"};
  pump();
  EXPECT_EQ(places_.size(), 1U);
  now_us_ += 3'000'001;
  pump();
  EXPECT_EQ(client.heard()["exit"], MIGRATE_ERROR);
  EXPECT_TRUE(forwards_.empty());
}

TEST_F(ForwardsTest, ThePlaceThatIsLostIsWaitedForThreeSeconds) {
  Client client = this->client({{"command", "check"}});
  places_[0].hang_up();
  pump();
  now_us_ += 2'999'000;
  pump();
  EXPECT_EQ(client.heard(), nullptr);
  now_us_ += 2'000;
  pump();
  const json result = client.heard();
  EXPECT_EQ(result["exit"], MIGRATE_ERROR);
  EXPECT_NE(result["error"]["message"].get<std::string>().find("b:7070"), std::string::npos);
}

TEST_F(ForwardsTest, TheNextPlaceCannotBeReachedEither) {
  Client client = this->client({{"command", "check"}});
  places_[0].hang_up();
  pump();
  where_ = {"c:7070", "22"};
  unreachable_ = true;
  pump();
  EXPECT_EQ(client.heard()["exit"], MIGRATE_FAILED);
  EXPECT_TRUE(forwards_.empty());
}

TEST_F(ForwardsTest, AProcessThatHasEndedAnswersNothingMore) {
  Client lost = client({{"command", "check"}});
  places_[0].hang_up();
  pump();
  pump(true);
  EXPECT_EQ(lost.heard()["exit"], MIGRATE_ERROR);
  Client left = client({{"command", "check"}});
  EXPECT_FALSE(forwards_.empty());
  forwards_.end();
  EXPECT_EQ(left.heard()["exit"], MIGRATE_ERROR);
  EXPECT_TRUE(forwards_.empty());
}

TEST_F(ForwardsTest, BytesThatAreNoJsonEndNothing) {
  Client client = this->client({{"command", "check"}});
  places_[0].say(json::array({1, 2}));
  places_[0].say({{"event", "result"}, {"exit", "no number"}});
  pump();
  EXPECT_EQ(client.heard(), nullptr);  // An empty event.
  EXPECT_EQ(client.heard()["exit"], MIGRATE_ERROR);
}

TEST_F(ForwardsTest, PollsForPlacesAndForNewsOfLostOnes) {
  Client client = this->client({{"command", "check"}});
  std::vector<pollfd> polled;
  EXPECT_EQ(forwards_.collect_poll_fds(polled), -1);
  EXPECT_EQ(polled.size(), 1U);
  places_[0].hang_up();
  pump();
  polled.clear();
  EXPECT_GT(forwards_.collect_poll_fds(polled), 0);
  EXPECT_TRUE(polled.empty());
}

TEST_F(ForwardsTest, AClientThatWentAwayIsForgotten) {
  Client client = this->client({{"command", "check"}});
  client.hang_up();
  places_[0].say({{"event", "phase"}});
  pump();
  places_[0].hang_up();
  pump();
  EXPECT_TRUE(forwards_.empty());
}

}  // namespace
}  // namespace migrate
