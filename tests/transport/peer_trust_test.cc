#include "transport/peer_trust.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <future>

#include "base/file.h"
#include "tests/transport/preamble_reader.h"
#include "tests/transport/tls_fixture.h"
#include "transport/proof.h"
#include "transport/tcp.h"

namespace migrate {
namespace {

constexpr int kTimeoutMs = 5000;

struct Ends {
  Result<PeerTrust::Peer> client;
  Result<PeerTrust::Peer> server;
};

/// Connects over loopback; the server reads the preamble and lets the client in, or not.
Ends meet(const PeerTrust& client, const PeerTrust& server, const Preamble& preamble = {},
          const std::string& host = "127.0.0.1") {
  TcpListener listener = TcpListener::create(Address{"tcp", "127.0.0.1", 0}).value();
  auto accepted = std::async(std::launch::async, [&]() -> Result<PeerTrust::Peer> {
    UniqueFd connection = MIGRATE_TRY(listener.accept(kTimeoutMs)).fd;
    const Preamble read = MIGRATE_TRY(receive_preamble(connection.get(), kTimeoutMs));
    return server.accept(std::move(connection), read, kTimeoutMs);
  });
  auto connected = client.connect(Address{"tcp", host, listener.port()}, preamble, kTimeoutMs);
  return {std::move(connected), accepted.get()};
}

class PeerTrustTest : public testing::Test {
 protected:
  PeerTrust host(const std::string& name) { return PeerTrust(cluster_.host(name, {"127.0.0.1"})); }
  test::Cluster cluster_;
};

TEST_F(PeerTrustTest, PlainPeersHaveTheirAddressOnly) {
  const Ends ends = meet(PeerTrust(), PeerTrust());
  ASSERT_TRUE(ends.client && ends.server);
  EXPECT_EQ(ends.server->identity.common_name, "");
  EXPECT_EQ(ends.server->identity.alternative_names, std::vector<std::string>{"127.0.0.1"});
  EXPECT_TRUE(ends.server->identity.is_host("127.0.0.1"));
  EXPECT_TRUE(ends.server->identity.is_host("localhost"));
  EXPECT_FALSE(ends.server->identity.is_host("127.0.0.2"));
  EXPECT_NE(ends.server->identity.to_string().find("unauthenticated"), std::string::npos);
}

TEST_F(PeerTrustTest, TlsPeersHaveTheirNames) {
  const Ends ends = meet(host("hosta"), host("hostb"));
  ASSERT_TRUE(ends.client) << ends.client.error().message();
  ASSERT_TRUE(ends.server) << ends.server.error().message();
  EXPECT_EQ(ends.client->identity.common_name, "hostb");
  EXPECT_EQ(ends.server->identity.common_name, "hosta");
  EXPECT_TRUE(ends.server->identity.is_host("hosta"));
  EXPECT_FALSE(ends.server->identity.is_host("hostb"));
  EXPECT_TRUE(ends.server->identity.same_host(ends.server->identity));
  EXPECT_FALSE(ends.server->identity.same_host(ends.client->identity));
}

TEST_F(PeerTrustTest, ThoseWithAndWithoutKeysRefuseEachOther) {
  const Ends stranger = meet(PeerTrust(), host("hostb"));
  EXPECT_FALSE(stranger.server);
  const Ends opposite = meet(host("hosta"), PeerTrust());
  ASSERT_FALSE(opposite.client);
  EXPECT_NE(opposite.client.error().message().find("--keys"), std::string::npos);
}

TEST_F(PeerTrustTest, APeerWithoutAPlaceIsAskedAgain) {
  TcpListener listener = TcpListener::create(Address{"tcp", "127.0.0.1", 0}).value();
  const auto busy = std::async(std::launch::async, [&]() -> Result<PeerTrust::Peer> {
    for (int i = 0; i < 2; ++i) {
      const UniqueFd refused = MIGRATE_TRY(listener.accept(kTimeoutMs)).fd;
      MIGRATE_TRY(receive_preamble(refused.get(), kTimeoutMs));
      refuse_for_now(refused.get());
    }
    UniqueFd connection = MIGRATE_TRY(listener.accept(kTimeoutMs)).fd;
    const Preamble read = MIGRATE_TRY(receive_preamble(connection.get(), kTimeoutMs));
    return host("hostb").accept(std::move(connection), read, kTimeoutMs);
  });
  const auto peer = host("hosta").connect({"tcp", "127.0.0.1", listener.port()}, {}, kTimeoutMs);
  EXPECT_TRUE(peer) << peer.error().message();
}

TEST_F(PeerTrustTest, WhoHasNoPlaceAtAllSaysSoAndBlamesNoKeys) {
  for (const PeerTrust& client : {PeerTrust(), host("hosta")}) {
    TcpListener listener = TcpListener::create(Address{"tcp", "127.0.0.1", 0}).value();
    std::atomic<bool> over = false;
    const auto busy = std::async(std::launch::async, [&] {
      while (!over) {
        if (const auto refused = listener.accept(20)) {
          static_cast<void>(receive_preamble(refused->fd.get(), kTimeoutMs));
          refuse_for_now(refused->fd.get());
        }
      }
    });
    auto peer = client.connect({"tcp", "127.0.0.1", listener.port()}, {}, 300);
    const Error error = peer ? peer->channel->receive(0, kTimeoutMs).error() : peer.error();
    over = true;
    EXPECT_EQ(error.code, ErrorCode::kBusy) << error.message();
    EXPECT_EQ(error.message().find("keys"), std::string::npos) << error.message();
  }
}

TEST_F(PeerTrustTest, AnotherVersionIsNamed) {
  constexpr std::uint16_t kOther = kProtocolVersion + 1;
  for (const PeerTrust& client : {PeerTrust(), host("hosta")}) {
    TcpListener listener = TcpListener::create(Address{"tcp", "127.0.0.1", 0}).value();
    const auto other = std::async(std::launch::async, [&] {
      const UniqueFd connection = listener.accept(kTimeoutMs).value().fd;
      static_cast<void>(receive_preamble(connection.get(), kTimeoutMs));
      auto answer = encode({.version = kOther});
      answer[6] = std::byte{0};
      static_cast<void>(write_all(connection.get(), answer));
      static_cast<void>(::shutdown(connection.get(), SHUT_WR));
      std::byte ignored{};
      static_cast<void>(::recv(connection.get(), &ignored, 1, MSG_WAITALL));
    });
    auto peer = client.connect({"tcp", "127.0.0.1", listener.port()}, {}, kTimeoutMs);
    const Error error = peer ? peer->channel->receive(0, kTimeoutMs).error() : peer.error();
    EXPECT_EQ(error.code, ErrorCode::kUnsupported) << error.message();
    EXPECT_NE(error.message().find("version " + std::to_string(kOther)), std::string::npos)
        << error.message();
  }
}

TEST_F(PeerTrustTest, HostsOfAnotherAuthorityAreRefused) {
  const test::Cluster other;
  const Ends ends = meet(PeerTrust(other.host("hosta", {"127.0.0.1"})), host("hostb"));
  ASSERT_FALSE(ends.client);
  ASSERT_FALSE(ends.server);
  EXPECT_EQ(ends.client.error().code, ErrorCode::kRefused) << ends.client.error().message();
}

TEST_F(PeerTrustTest, AHostThatIsNotTheOneMeantIsRefused) {
  const Ends ends = meet(host("hosta"), PeerTrust(cluster_.host("hostb")));  // not for 127.0.0.1
  ASSERT_FALSE(ends.client);
  const std::string message = ends.client.error().message();
  EXPECT_EQ(ends.client.error().code, ErrorCode::kRefused) << message;
  for (const char* words : {"for hostb, not for 127.0.0.1", "migratectl keys add-host", "--also"}) {
    EXPECT_NE(message.find(words), std::string::npos) << message;
  }
}

constexpr uid_t kNobody = 65534;

/// What a host without keys says to a process of `user` that connects to `to`, by way of `host`.
/// With `stays`, the process waits for its end of the connection to be closed; else it ends first.
Result<PeerTrust::Peer> connect_as(uid_t user, const std::string& to, const std::string& host,
                                   bool stays = true) {
  TcpListener listener = MIGRATE_TRY(TcpListener::create(Address{"tcp", to, 0}));
  const pid_t child = ::fork();
  if (child == 0) {
    const bool changed = ::setresuid(user, user, user) == 0;
    const auto fd = connect_tcp(Address{"tcp", host, listener.port()}, kTimeoutMs);
    const bool sent = changed && fd && send_preamble(fd->get(), {});
    pollfd closed{sent ? fd->get() : -1, POLLIN, 0};
    ::_exit(sent && (!stays || ::poll(&closed, 1, kTimeoutMs) == 1) ? 0 : 1);
  }
  UniqueFd connection = MIGRATE_TRY(listener.accept(kTimeoutMs)).fd;
  const Preamble read = MIGRATE_TRY(receive_preamble(connection.get(), kTimeoutMs));
  int status = -1;
  if (!stays) {
    EXPECT_EQ(::waitpid(child, &status, 0), child);
  }
  auto peer = PeerTrust().accept(std::move(connection), read, kTimeoutMs);
  if (stays) {
    if (peer) {
      peer->channel.reset();
    }
    EXPECT_EQ(::waitpid(child, &status, 0), child);
  }
  EXPECT_EQ(status, 0);
  return peer;
}

struct LoopbackWay {
  std::string listens;
  std::string connects;
};

std::vector<LoopbackWay> loopback_ways() {
  std::vector<LoopbackWay> ways{{"127.0.0.1", "127.0.0.1"}, {"127.0.0.2", "127.0.0.2"}};
  if (TcpListener::create(Address{"tcp", "::1", 0})) {
    ways.insert(ways.end(),
                {{"127.0.0.1", "::ffff:127.0.0.1"}, {"::", "127.0.0.1"}, {"::1", "::1"}});
  }
  return ways;
}

TEST(LocalPeer, OfAnotherUserIsRefused) {
  if (::geteuid() != 0) {
    GTEST_SKIP() << "only root can connect as other users";
  }
  for (const auto& [listens, connects] : loopback_ways()) {
    SCOPED_TRACE(connects + " to " + listens);
    const auto refused = connect_as(kNobody, listens, connects);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::kRefused) << refused.error().message();
    for (const char* word : {"user 65534", "tcp://", "migratectl keys", "--munge"}) {
      EXPECT_NE(refused.error().message().find(word), std::string::npos)
          << refused.error().message();
    }
  }
}

TEST(LocalPeer, OfTheSameUserIsTaken) {
  for (const auto& [listens, connects] : loopback_ways()) {
    SCOPED_TRACE(connects + " to " + listens);
    const auto taken = connect_as(::geteuid(), listens, connects);
    EXPECT_TRUE(taken) << taken.error().message();
  }
}

TEST(LocalPeer, ThatIsGoneIsRefused) {
  const auto refused = connect_as(::geteuid(), "127.0.0.1", "127.0.0.1", false);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kRefused) << refused.error().message();
}

class ProofTest : public testing::Test {
 protected:
  Result<void> ask(const std::string& asked, const std::string& given, const Preamble& seen = {}) {
    Ends ends = meet(PeerTrust(), PeerTrust());
    auto answered = std::async(std::launch::async, [&] {
      return give_proof(*ends.client->channel, given, {}, kTimeoutMs);
    });
    Result<void> result = ask_proof(*ends.server->channel, asked, seen, kTimeoutMs);
    ends.server->channel->shutdown();
    static_cast<void>(answered.get());
    return result;
  }
};

TEST_F(ProofTest, IsOfTheTokenAndThePreamble) {
  EXPECT_TRUE(ask("secret", "secret"));
  EXPECT_EQ(ask("secret", "Secret").error().code, ErrorCode::kRefused);
  EXPECT_EQ(ask("secret", "secret", {.purpose = Purpose::kBulk}).error().code, ErrorCode::kRefused);
  EXPECT_FALSE(ask("", ""));
}

TEST_F(ProofTest, CannotBeReplayed) {
  std::vector<std::byte> overheard;
  for (const bool replays : {false, true}) {
    Ends ends = meet(PeerTrust(), PeerTrust());
    auto client = std::async(std::launch::async, [&] {
      if (replays) {
        static_cast<void>(ends.client->channel->receive(0, kTimeoutMs));
        static_cast<void>(ends.client->channel->send_one(overheard));
        return;
      }
      Ends wire = meet(PeerTrust(), PeerTrust());  // on which the answer is overheard
      const auto question = ends.client->channel->receive(0, kTimeoutMs).value();
      ASSERT_TRUE(wire.server->channel->send_one(question));
      ASSERT_TRUE(give_proof(*wire.client->channel, "secret", {}, kTimeoutMs));
      const auto answer = wire.server->channel->receive(0, kTimeoutMs).value();
      overheard.assign(answer.begin(), answer.end());
      ASSERT_TRUE(ends.client->channel->send_one(overheard));
    });
    const Result<void> asked = ask_proof(*ends.server->channel, "secret", {}, kTimeoutMs);
    client.get();
    EXPECT_EQ(asked.has_value(), !replays);
  }
}

}  // namespace
}  // namespace migrate
