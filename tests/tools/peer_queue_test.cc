#include "tools/migrated/peer_queue.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include "base/file.h"

namespace migrate {
namespace {

/// The other end of a connection in the queue.
struct Client {
  UniqueFd fd;

  void say(std::span<const std::byte> bytes) const { EXPECT_TRUE(write_all(fd.get(), bytes)); }
  /// What it was told; empty if it was just hung up on. Nothing while its connection is open.
  std::optional<std::vector<std::byte>> told() const {
    std::vector<std::byte> bytes(kPreambleBytes);
    const ssize_t count = ::recv(fd.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
    if (count < 0 && errno == EAGAIN) {
      return std::nullopt;
    }
    bytes.resize(static_cast<std::size_t>(std::max<ssize_t>(count, 0)));
    return bytes;
  }
  bool is_told_to_come_again() const {
    const auto bytes = told();
    const auto refusal = bytes ? refusal_in(*bytes) : std::nullopt;
    return refusal && refusal->code == ErrorCode::kBusy;
  }
};

PeerOrigin stranger(const std::string& host) {
  return {.host = host, .group = host, .is_local = false, .is_root = false};
}
PeerOrigin root_of(const std::string& host) {
  return {.host = host, .group = "root of " + host, .is_local = false, .is_root = true};
}

class PeerQueueTest : public testing::Test {
 protected:
  static constexpr std::size_t kWaiting = 8;
  static constexpr std::size_t kServed = 8;  // Two for a group, six for strangers.

  Client connect(const PeerOrigin& origin, const std::optional<Preamble>& preamble = Preamble{}) {
    std::array<int, 2> ends{};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
    Client client{UniqueFd(ends[0])};
    if (preamble) {
      client.say(encode(*preamble));
    }
    queue_.admit(UniqueFd(ends[1]), origin.group, origin);
    return client;
  }
  void read() {
    std::vector<pollfd> polls;
    queue_.append_polls(polls);
    ::poll(polls.data(), polls.size(), 0);
    queue_.read(polls);
  }
  /// The names of all that are to be served now.
  std::vector<std::string> serve() {
    std::vector<std::string> names;
    while (auto newcomer = queue_.next()) {
      names.push_back(newcomer->name);
      served_.push_back(std::move(*newcomer));
    }
    return names;
  }
  using Names = std::vector<std::string>;

  Preamble of_worker_{.purpose = Purpose::kResume, .session = SessionId{std::byte{7}}};
  PeerQueue queue_{{.waiting = kWaiting, .served = kServed},
                   std::make_shared<const PeerLog>(PeerLog::create().value()),
                   [this](const SessionId& session) { return session == of_worker_.session; }};
  std::vector<PeerQueue::Newcomer> served_;
};

TEST_F(PeerQueueTest, ServesWhoHasSentAPreamble) {
  const Client at_once = connect(stranger("a"));
  const Client later = connect(stranger("b"), std::nullopt);
  EXPECT_EQ(serve(), Names{"a"});
  const auto bytes = encode({.purpose = Purpose::kQuery});
  later.say(std::span(bytes).first(5));
  read();
  EXPECT_EQ(serve(), Names{});
  later.say(std::span(bytes).subspan(5));
  read();
  EXPECT_EQ(serve(), Names{"b"});
  EXPECT_EQ(served_.back().preamble, bytes);
  EXPECT_EQ(queue_.waiting(), 0U);
}

TEST_F(PeerQueueTest, HangsUpOnWhatIsNoPreamble) {
  const Client other = connect(stranger("a"), std::nullopt);
  other.say(std::vector<std::byte>(kPreambleBytes, std::byte{'x'}));
  Client gone = connect(stranger("a"), std::nullopt);
  gone.fd.reset();
  read();
  EXPECT_EQ(queue_.waiting(), 0U);
  EXPECT_EQ(other.told(), std::vector<std::byte>());
}

TEST_F(PeerQueueTest, AnotherVersionIsToldByWhoeverServesIt) {
  const Client other = connect(stranger("a"), Preamble{.version = kProtocolVersion + 1});
  EXPECT_EQ(serve(), Names{"a"});
}

TEST_F(PeerQueueTest, AFloodOfHalfOpenOnesKeepsNobodyOut) {
  std::vector<Client> flood;
  const Client slow = connect(stranger("slow"), std::nullopt);
  for (int i = 0; i < 100; ++i) {
    flood.push_back(connect(stranger("a"), std::nullopt));
    const Client quick = connect(stranger("quick"));
    EXPECT_EQ(serve(), Names{"quick"});
    queue_.leave(served_.back().place, true);
  }
  EXPECT_LE(queue_.waiting(), kWaiting);
  EXPECT_TRUE(flood.front().is_told_to_come_again());
  EXPECT_FALSE(flood.back().told());
  EXPECT_FALSE(slow.told());
}

TEST_F(PeerQueueTest, NoGroupHasMoreThanAQuarterOfThePlaces) {
  std::vector<Client> clients;
  for (int i = 0; i < 4; ++i) {
    clients.push_back(connect(stranger("a")));
  }
  clients.push_back(connect(stranger("b")));
  EXPECT_EQ(serve(), (Names{"a", "b", "a"}));  // The groups evenly.
  queue_.leave(served_.front().place, true);
  EXPECT_EQ(serve(), Names{"a"});
}

TEST_F(PeerQueueTest, WhoProvesNothingDoesNotMakeWayAtOnce) {
  std::vector<Client> clients;
  for (int i = 0; i < 3; ++i) {
    clients.push_back(connect(stranger("a")));
  }
  EXPECT_EQ(serve().size(), 2U);
  queue_.leave(served_.front().place, false);
  queue_.expire();
  EXPECT_EQ(serve(), Names{});
  served_.back().place.taken -= std::chrono::seconds(3);
  queue_.leave(served_.back().place, false);
  queue_.expire();
  EXPECT_EQ(serve(), Names{"a"});
}

TEST_F(PeerQueueTest, WhoIsKnownHasPlacesLeft) {
  const Client first = connect(root_of("known"));
  EXPECT_EQ(serve(), Names{"root of known"});
  queue_.leave(served_.back().place, true);
  std::vector<Client> clients;
  for (const char* host : {"a", "b", "c", "d"}) {
    clients.push_back(connect(stranger(host)));
    clients.push_back(connect(stranger(host)));
  }
  EXPECT_EQ(serve().size(), 6U);
  const Client unknown = connect(root_of("unknown"));
  EXPECT_EQ(serve(), Names{});
  const Client known = connect(root_of("known"));
  EXPECT_EQ(serve(), Names{"root of known"});
  const Client again = connect(stranger("e"), of_worker_);
  EXPECT_EQ(serve(), Names{"e"});
}

TEST_F(PeerQueueTest, AUserOfAHostDoesNotStandInTheWayOfItsDaemon) {
  std::vector<Client> clients;
  for (int i = 0; i < 6; ++i) {
    clients.push_back(connect(stranger("a")));
  }
  clients.push_back(connect(root_of("a")));
  EXPECT_EQ(serve(), (Names{"a", "root of a", "a"}));
}

TEST_F(PeerQueueTest, ASessionsReconnectionDoesNotWaitForItsHostsOthers) {
  std::vector<Client> clients;
  for (int i = 0; i < 6; ++i) {
    clients.push_back(connect(stranger("a")));
  }
  clients.push_back(connect(stranger("a"), of_worker_));
  serve();
  EXPECT_EQ(served_.front().place.group, "session " + to_hex(of_worker_.session) + " of a");
  EXPECT_EQ(served_.size(), 3U);
}

TEST_F(PeerQueueTest, WhoseGroupIsManyMustHurry) {
  std::vector<Client> clients{};
  clients.push_back(connect(stranger("a")));
  clients.push_back(connect(stranger("a")));
  serve();
  EXPECT_FALSE(served_.front().must_hurry);
  EXPECT_TRUE(served_.back().must_hurry);
}

}  // namespace
}  // namespace migrate
