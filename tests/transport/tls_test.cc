#include "transport/tls.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <thread>
#include <utility>

#include "base/file.h"
#include "tests/transport/channel_factories.h"
#include "tests/transport/tls_fixture.h"

namespace migrate {
namespace {

using test::Cluster;
using test::connected_tcp_sockets;
using test::shake_hands;

std::vector<std::byte> bytes_of(std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

class TlsTest : public testing::Test {
 protected:
  Cluster cluster_;
  TlsContext a_ = cluster_.host("hosta");
  TlsContext b_ = cluster_.host("10.1.2.3");
};

TEST_F(TlsTest, BothSidesKnowEachOther) {
  const auto ends = shake_hands(connected_tcp_sockets(), a_, {.expected_host = "10.1.2.3"}, b_, {});
  ASSERT_TRUE(ends.client) << ends.client.error().message();
  ASSERT_TRUE(ends.server) << ends.server.error().message();
  EXPECT_EQ((*ends.client)->identity().common_name, "10.1.2.3");
  EXPECT_EQ((*ends.client)->identity().alternative_names, std::vector<std::string>{"10.1.2.3"});
  EXPECT_EQ((*ends.server)->identity().common_name, "hosta");
  EXPECT_EQ((*ends.server)->identity().alternative_names, std::vector<std::string>{"hosta"});
}

TEST_F(TlsTest, RefusesAnotherHostThanMeant) {
  for (const std::string host : {"hosta", "10.1.2.4", "::1"}) {
    const auto ends = shake_hands(connected_tcp_sockets(), a_, {.expected_host = host}, b_, {});
    ASSERT_FALSE(ends.client);
    EXPECT_EQ(ends.client.error().code, ErrorCode::kRefused) << ends.client.error().message();
    ASSERT_FALSE(ends.server);
    EXPECT_EQ(ends.server.error().code, ErrorCode::kRefused) << ends.server.error().message();
  }
  const auto ends = shake_hands(connected_tcp_sockets(), a_, {}, b_, {.expected_host = "other"});
  EXPECT_EQ(ends.client.error().code, ErrorCode::kRefused) << ends.client.error().message();
  EXPECT_EQ(ends.server.error().code, ErrorCode::kRefused) << ends.server.error().message();
}

TEST_F(TlsTest, RefusesCertificatesOfAnotherAuthority) {
  const Cluster other;
  const TlsContext stranger = other.host("hosta");
  // Wholly strange; and strange to the server only, which the client learns after its handshake.
  const KeyFiles files = create_host_certificate(other.directory(), "mixed").value();
  const TlsContext mixed =
      TlsContext::create(files.certificate, files.key, cluster_.authority()).value();
  for (const TlsContext* client : {&stranger, &mixed}) {
    for (int round = 0; round < 10; ++round) {
      const auto ends = shake_hands(connected_tcp_sockets(), *client, {}, b_, {});
      ASSERT_FALSE(ends.client);
      EXPECT_EQ(ends.client.error().code, ErrorCode::kRefused) << ends.client.error().message();
      ASSERT_FALSE(ends.server);
      EXPECT_EQ(ends.server.error().code, ErrorCode::kRefused) << ends.server.error().message();
    }
  }
}

TEST_F(TlsTest, NoticesAChangedPreamble) {
  const std::array<std::string_view, 2> changed{"purpose 3", "longer purpose"};
  for (const auto text : changed) {
    const auto ends = shake_hands(connected_tcp_sockets(), a_, {.binding = bytes_of("purpose 2")},
                                  b_, {.binding = bytes_of(text)});
    EXPECT_FALSE(ends.client);
    ASSERT_FALSE(ends.server);
    EXPECT_EQ(ends.server.error().code, ErrorCode::kRefused) << ends.server.error().message();
  }
  const auto same = shake_hands(connected_tcp_sockets(), a_, {.binding = bytes_of("purpose 2")}, b_,
                                {.binding = bytes_of("purpose 2")});
  EXPECT_TRUE(same.client && same.server);
}

TEST_F(TlsTest, GivesUpOnSilentAndStrangePeers) {
  {
    auto [raw, socket] = connected_tcp_sockets();
    const auto silent = TlsChannel::accept(std::move(socket), a_, {.handshake_timeout_ms = 50});
    EXPECT_EQ(silent.error().code, ErrorCode::kRetry);
  }
  {
    auto [raw, socket] = connected_tcp_sockets();
    ASSERT_TRUE(write_all(raw.get(), bytes_of("GET / HTTP/1.1\r\n\r\n")));
    std::ignore = ::shutdown(raw.get(), SHUT_WR);
    const auto strange = TlsChannel::accept(std::move(socket), a_, {});
    EXPECT_EQ(strange.error().code, ErrorCode::kCorrupt) << strange.error().message();
  }
  {
    auto [raw, socket] = connected_tcp_sockets();
    raw.reset();
    const auto gone = TlsChannel::connect(std::move(socket), a_, {});
    EXPECT_EQ(gone.error().code, ErrorCode::kPeerLost) << gone.error().message();
  }
}

TEST_F(TlsTest, RefusesClientsWithoutCertificateAndOldVersions) {
  for (const int version : {TLS1_3_VERSION, TLS1_2_VERSION}) {
    auto [raw, socket] = connected_tcp_sockets();
    std::thread client([&raw = raw, version] {
      SSL_CTX* context = ::SSL_CTX_new(::TLS_client_method());
      SSL_CTX_set_max_proto_version(context, version);
      SSL* ssl = ::SSL_new(context);
      ASSERT_EQ(::fcntl(raw.get(), F_SETFL, 0), 0);
      ::SSL_set_fd(ssl, raw.get());
      std::array<char, 8> buffer{};
      EXPECT_TRUE(::SSL_connect(ssl) != 1 || ::SSL_read(ssl, buffer.data(), 8) <= 0);
      ::SSL_free(ssl);
      ::SSL_CTX_free(context);
      raw.reset();
    });
    const auto server = TlsChannel::accept(std::move(socket), a_, {});
    EXPECT_FALSE(server);
    EXPECT_EQ(server.error().code,
              version == TLS1_3_VERSION ? ErrorCode::kRefused : ErrorCode::kCorrupt)
        << server.error().message();
    client.join();
  }
}

TEST_F(TlsTest, ChangesKeysOnTheWay) {
  auto ends =
      shake_hands(connected_tcp_sockets(), a_, {.records_per_key = 3}, b_, {.records_per_key = 5});
  ASSERT_TRUE(ends.client && ends.server);
  const std::vector<std::byte> message(300000, std::byte{7});
  const auto send_all = [&](Channel& channel) {
    for (int i = 0; i < 100; ++i) {
      const auto sent = channel.send_one(message);
      ASSERT_TRUE(sent) << sent.error().message();
    }
  };
  const auto receive_all = [&](Channel& channel) {
    for (int i = 0; i < 100; ++i) {
      const auto received = channel.receive();
      ASSERT_TRUE(received) << received.error().message();
      ASSERT_TRUE(std::equal(received->begin(), received->end(), message.begin(), message.end()));
    }
  };
  std::array<std::thread, 4> threads{std::thread([&] { send_all(**ends.client); }),
                                     std::thread([&] { send_all(**ends.server); }),
                                     std::thread([&] { receive_all(**ends.client); }),
                                     std::thread([&] { receive_all(**ends.server); })};
  for (std::thread& thread : threads) {
    thread.join();
  }
}

/// Stands between two ends and passes bytes on, changing those at `corrupt_at_` of what the client
/// sends, and keeping a copy.
class Eavesdropper {
 public:
  Eavesdropper() {
    auto [client, near_end] = connected_tcp_sockets();
    auto [far_end, server] = connected_tcp_sockets();
    ends_ = {std::move(client), std::move(server)};
    thread_ = std::thread([this, near_fd = std::move(near_end), far_fd = std::move(far_end)] {
      run(near_fd.get(), far_fd.get());
    });
  }
  ~Eavesdropper() { thread_.join(); }

  std::pair<UniqueFd, UniqueFd> take_ends() { return std::move(ends_); }
  void corrupt_from_now() { corrupt_ = true; }
  const std::string& heard() const { return heard_; }
  void join() {
    thread_.join();
    thread_ = std::thread([] {});
  }

 private:
  void run(int near_fd, int far_fd) {
    std::array<char, 65536> buffer;
    for (;;) {
      std::array<pollfd, 2> entries{{{near_fd, POLLIN, 0}, {far_fd, POLLIN, 0}}};
      if (::poll(entries.data(), 2, 10000) <= 0) {
        return;
      }
      for (int i = 0; i < 2; ++i) {
        if (entries[i].revents == 0) {
          continue;
        }
        const ssize_t count = ::recv(entries[i].fd, buffer.data(), buffer.size(), 0);
        if (count <= 0) {
          return;
        }
        if (i == 0 && corrupt_) {
          buffer[static_cast<std::size_t>(count) / 2] ^= 1;
        }
        heard_.append(buffer.data(), static_cast<std::size_t>(count));
        if (::send(entries[1 - i].fd, buffer.data(), static_cast<std::size_t>(count),
                   MSG_NOSIGNAL) != count) {
          return;
        }
      }
    }
  }

  std::pair<UniqueFd, UniqueFd> ends_;
  std::atomic<bool> corrupt_{false};
  std::string heard_;
  std::thread thread_;
};

TEST_F(TlsTest, NoContentIsSeenOnTheWay) {
  Eavesdropper eavesdropper;
  const std::string secret = "this is the content of a page";
  {
    auto ends = shake_hands(eavesdropper.take_ends(), a_, {}, b_, {});
    ASSERT_TRUE(ends.client && ends.server);
    ASSERT_TRUE((*ends.client)->send_one(bytes_of(secret)));
    EXPECT_EQ((*ends.server)->receive().value().size(), secret.size());
  }
  eavesdropper.join();
  EXPECT_GT(eavesdropper.heard().size(), secret.size());
  EXPECT_EQ(eavesdropper.heard().find(secret), std::string::npos);
  EXPECT_EQ(eavesdropper.heard().find("hosta"), std::string::npos);
}

TEST_F(TlsTest, NoticesChangedBytes) {
  Eavesdropper eavesdropper;
  auto ends = shake_hands(eavesdropper.take_ends(), a_, {}, b_, {});
  ASSERT_TRUE(ends.client && ends.server);
  eavesdropper.corrupt_from_now();
  ASSERT_TRUE((*ends.client)->send_one(std::vector<std::byte>(1000)));
  const auto received = (*ends.server)->receive(0, 5000);
  ASSERT_FALSE(received);
  EXPECT_EQ(received.error().code, ErrorCode::kCorrupt) << received.error().message();
  EXPECT_FALSE((*ends.server)->receive(0, 5000));
  EXPECT_FALSE((*ends.server)->send_one(std::vector<std::byte>(1)));
}

TEST_F(TlsTest, ContextReportsBadFiles) {
  const std::string& directory = cluster_.directory();
  const std::string certificate = directory + "/hosta.crt";
  const std::string key = directory + "/hosta.key";
  const std::string authority = cluster_.authority();
  EXPECT_EQ(TlsContext::create(directory + "/none", key, authority).error().code,
            ErrorCode::kNotFound);
  EXPECT_EQ(TlsContext::create(certificate, directory + "/none", authority).error().code,
            ErrorCode::kNotFound);
  EXPECT_EQ(TlsContext::create(certificate, key, directory + "/none").error().code,
            ErrorCode::kNotFound);
  EXPECT_EQ(TlsContext::create(certificate, directory + "/10.1.2.3.key", authority).error().code,
            ErrorCode::kCorrupt);
  EXPECT_EQ(TlsContext::create(key, key, authority).error().code, ErrorCode::kCorrupt);
  EXPECT_EQ(TlsContext::create(certificate, key, key).error().code, ErrorCode::kCorrupt);
  ASSERT_EQ(::chmod(key.c_str(), 0640), 0);
  const auto readable = TlsContext::create(certificate, key, authority);
  ASSERT_FALSE(readable);
  EXPECT_EQ(readable.error().code, ErrorCode::kRefused);
}

class KeyFilesTest : public TlsTest {
 protected:
  void expect_refused(const std::string& object, const std::string& remedy) {
    const auto context = TlsContext::create(certificate_, key_, authority_);
    ASSERT_FALSE(context) << object;
    const std::string message = context.error().message();
    EXPECT_EQ(context.error().code, ErrorCode::kRefused) << message;
    EXPECT_EQ(context.error().object, object) << message;
    EXPECT_NE(message.find(remedy), std::string::npos) << message;
  }
  void expect_taken() {
    const auto context = TlsContext::create(certificate_, key_, authority_);
    EXPECT_TRUE(context) << context.error().message();
  }

  std::string directory_ = cluster_.directory();
  std::string certificate_ = directory_ + "/hosta.crt";
  std::string key_ = directory_ + "/hosta.key";
  std::string authority_ = cluster_.authority();
};

TEST_F(KeyFilesTest, MayNotBeWrittenByOthers) {
  for (const std::string& path : {certificate_, authority_, key_}) {
    for (const mode_t mode : {0620, 0602}) {
      ASSERT_EQ(::chmod(path.c_str(), mode), 0);
      expect_refused(path, "chmod go-w");
    }
    ASSERT_EQ(::chmod(path.c_str(), 0600), 0);
  }
  for (const mode_t mode : {0770, 0703, 01777}) {
    ASSERT_EQ(::chmod(directory_.c_str(), mode), 0);
    expect_refused(directory_, "chmod go-w");
  }
  ASSERT_EQ(::chmod(directory_.c_str(), 0755), 0);
  for (const std::string& path : {certificate_, authority_}) {
    ASSERT_EQ(::chmod(path.c_str(), 0644), 0);
  }
  expect_taken();
}

TEST_F(KeyFilesTest, MayNotBeOfAnotherUser) {
  if (::geteuid() != 0) {
    GTEST_SKIP() << "only root can give files away";
  }
  for (const std::string& path : {certificate_, authority_, key_, directory_}) {
    ASSERT_EQ(::chown(path.c_str(), 65534, 0), 0);
    expect_refused(path, "user 65534, who may change it; chown it to root");
    ASSERT_EQ(::chown(path.c_str(), 0, 0), 0);
  }
  expect_taken();
}

TEST_F(KeyFilesTest, AreRegularFiles) {
  for (std::string* path : {&certificate_, &authority_, &key_}) {
    const std::string pipe = *path + ".pipe";
    ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
    const std::string before = std::exchange(*path, pipe);
    expect_refused(pipe, "not a regular file");
    *path = before;
  }
}

TEST_F(KeyFilesTest, MayBeLinksIntoGuardedDirectories) {
  const test::TemporaryDirectory elsewhere;
  const std::string link = elsewhere.file("hosta.key");
  ASSERT_EQ(::symlink(key_.c_str(), link.c_str()), 0);
  key_ = link;
  expect_taken();
  ASSERT_EQ(::chmod(elsewhere.path().c_str(), 0777), 0);
  expect_refused(elsewhere.path(), "chmod go-w");
  ASSERT_EQ(::chmod(elsewhere.path().c_str(), 0700), 0);
  const Cluster open;
  ASSERT_TRUE(create_host_certificate(open.directory(), "hosta"));
  ASSERT_EQ(::unlink(link.c_str()), 0);
  ASSERT_EQ(::symlink((open.directory() + "/hosta.key").c_str(), link.c_str()), 0);
  ASSERT_EQ(::chmod(open.directory().c_str(), 0777), 0);
  expect_refused(open.directory(), "chmod go-w");
}

}  // namespace
}  // namespace migrate
