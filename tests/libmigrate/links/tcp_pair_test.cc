// Pairs of TCP sockets made without a packet, and what the kernel counts of them.
#include "libmigrate/links/tcp_pair.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <string>
#include <thread>
#include <vector>

#include "libmigrate/links/tcp_socket.h"
#include "libmigrate/links/tcp_watch.h"

namespace migrate {
namespace {

SocketName four(const char* address, std::uint16_t port) {
  sockaddr_in name{};
  name.sin_family = AF_INET;
  name.sin_port = htons(port);
  inet_pton(AF_INET, address, &name.sin_addr);
  return *SocketName::from_bytes({reinterpret_cast<const char*>(&name), sizeof(name)});
}

SocketName six(const char* address, std::uint16_t port) {
  sockaddr_in6 name{};
  name.sin6_family = AF_INET6;
  name.sin6_port = htons(port);
  inet_pton(AF_INET6, address, &name.sin6_addr);
  return *SocketName::from_bytes({reinterpret_cast<const char*>(&name), sizeof(name)});
}

std::string read_all(int fd) {
  std::string all;
  std::string part(1 << 16, '\0');
  for (ssize_t count = 0; (count = ::read(fd, part.data(), part.size())) > 0;) {
    all.append(part, 0, static_cast<std::size_t>(count));
  }
  return all;
}

std::string long_text() {
  std::string text;
  for (int i = 0; text.size() < (20U << 20U); ++i) {
    text += std::to_string(i) + " ";
  }
  return text;
}

class TcpPairTest : public testing::TestWithParam<std::pair<SocketName, SocketName>> {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) {
      GTEST_SKIP() << "needs root";
    }
    const TcpPairNames wanted{GetParam().first, GetParam().second};
    auto made = make_tcp_pairs({&wanted, 1});
    ASSERT_TRUE(made) << made.error().message();
    pair_ = std::move(made->front());
  }

  TcpPairNames names_{GetParam().first, GetParam().second};
  TcpPair pair_;
};

INSTANTIATE_TEST_SUITE_P(
    Families, TcpPairTest,
    testing::Values(std::pair(four("192.0.2.7", 4000), four("198.51.100.9", 80)),
                    std::pair(four("127.0.0.1", 4000), four("127.0.0.1", 4001)),
                    std::pair(six("2001:db8::7", 4000), six("2001:db8::9", 80)),
                    std::pair(six("::1", 4000), six("::1", 80)),
                    std::pair(six("::ffff:192.0.2.7", 4000), six("::ffff:198.51.100.9", 80))));

TEST_P(TcpPairTest, HasTheNamesThatWereAskedFor) {
  EXPECT_EQ(*SocketName::of(pair_.end.get()), names_.local);
  EXPECT_EQ(*SocketName::of_peer(pair_.end.get()), names_.peer);
  EXPECT_EQ(*SocketName::of(pair_.mate.get()), names_.peer);
}

TEST_P(TcpPairTest, CarriesMuchBothWaysAndCountsIt) {
  const std::string text = long_text();
  for (const auto& [from, to] : {std::pair(pair_.end.get(), pair_.mate.get()),
                                 std::pair(pair_.mate.get(), pair_.end.get())}) {
    std::thread writer([&, from = from] {
      ASSERT_EQ(::send(from, text.data(), text.size(), MSG_WAITALL), ssize_t(text.size()));
      ASSERT_EQ(::shutdown(from, SHUT_WR), 0);
    });
    EXPECT_TRUE(read_all(to) == text);
    writer.join();
    if (to == pair_.mate.get()) {  // The connection is not over yet.
      EXPECT_EQ(count_bytes(to)->taken, text.size());
    }
  }
}

TEST_P(TcpPairTest, CountsWhatWaits) {
  const TcpCounts before = *count_bytes(pair_.mate.get());
  ASSERT_EQ(::send(pair_.mate.get(), "seven b", 7, 0), 7);
  char byte = 0;
  ASSERT_EQ(::recv(pair_.end.get(), &byte, 1, 0), 1);
  EXPECT_EQ(count_bytes(pair_.mate.get())->given - before.given, 7U);
  EXPECT_EQ(count_bytes(pair_.end.get())->unread, 6U);
  const auto seen = pair_.watch->look(names_.local, names_.peer);
  ASSERT_TRUE(seen && *seen);
  EXPECT_EQ((*seen)->taken, 1U);
  EXPECT_EQ((*seen)->unread, 6U);
  ASSERT_EQ(::shutdown(pair_.mate.get(), SHUT_WR), 0);
  EXPECT_EQ(count_bytes(pair_.end.get())->taken, 1U);
  EXPECT_EQ(count_bytes(pair_.mate.get())->given - before.given, 7U);
}

TEST_P(TcpPairTest, EndsOfBothDoNotCount) {
  const TcpCounts before = *count_bytes(pair_.mate.get());
  ASSERT_EQ(::send(pair_.mate.get(), "seven b", 7, 0), 7);
  ASSERT_EQ(::send(pair_.end.get(), "five.", 5, 0), 5);
  char byte = 0;
  ASSERT_EQ(::recv(pair_.mate.get(), &byte, 1, 0), 1);
  ASSERT_EQ(::shutdown(pair_.mate.get(), SHUT_WR), 0);
  ASSERT_EQ(::shutdown(pair_.end.get(), SHUT_WR), 0);
  for (int look = 0; look < 1000 && read_tcp_info(pair_.mate.get())->state() != TCP_CLOSE; ++look) {
    ::usleep(1000);
  }
  ASSERT_EQ(read_tcp_info(pair_.mate.get())->state(), TCP_CLOSE);
  const TcpCounts after = *count_bytes(pair_.mate.get());
  EXPECT_EQ(after.taken - before.taken, 1U);
  EXPECT_EQ(after.given - before.given, 7U);
  EXPECT_EQ(after.unread, 4U);
}

TEST_P(TcpPairTest, NothingCountsAfterAResetFromHere) {
  ASSERT_EQ(::send(pair_.mate.get(), "seven b", 7, 0), 7);
  const sockaddr nobody{.sa_family = AF_UNSPEC, .sa_data = {}};
  ASSERT_EQ(::connect(pair_.mate.get(), &nobody, sizeof(nobody)), 0);
  EXPECT_EQ(count_bytes(pair_.mate.get())->given, 0U);
  EXPECT_EQ(count_bytes(pair_.mate.get())->taken, 0U);
}

TEST_P(TcpPairTest, WatchIsToldWhenNobodyHasItOpen) {
  EXPECT_TRUE(*pair_.watch->look(names_.local, names_.peer));
  pair_.end.reset();
  EXPECT_FALSE(*pair_.watch->look(names_.local, names_.peer));
  EXPECT_EQ(read_all(pair_.mate.get()), "");
}

TEST_P(TcpPairTest, WatchBesideASocketSeesTheSame) {
  auto watch = TcpWatch::open_beside(pair_.mate.get());
  ASSERT_TRUE(watch) << watch.error().message();
  EXPECT_TRUE(*watch->look(names_.local, names_.peer));
}

TEST_P(TcpPairTest, UrgentByteArrivesAsSuch) {
  ASSERT_EQ(::send(pair_.mate.get(), "ab", 2, 0), 2);
  ASSERT_EQ(::send(pair_.mate.get(), "!", 1, MSG_OOB), 1);
  char byte = 0;
  ASSERT_EQ(::recv(pair_.end.get(), &byte, 1, MSG_OOB), 1);
  EXPECT_EQ(byte, '!');
}

TEST(TcpPairsTest, BothEndsOfOneConnection) {
  if (::geteuid() != 0) {
    GTEST_SKIP() << "needs root";
  }
  const SocketName one = four("127.0.0.1", 4000);
  const SocketName other = four("127.0.0.1", 4001);
  const std::array<TcpPairNames, 3> wanted{
      {{one, other}, {other, one}, {one, four("127.0.0.1", 4002)}}};
  const auto made = make_tcp_pairs(wanted);
  ASSERT_TRUE(made) << made.error().message();
  EXPECT_EQ(*SocketName::of((*made)[1].end.get()), other);
  EXPECT_EQ((*made)[0].watch, (*made)[2].watch);
}

TEST(TcpPairsTest, AreRefusedIfAllAreTheSame) {
  const std::vector<TcpPairNames> wanted(
      1000, TcpPairNames{four("127.0.0.1", 4000), four("127.0.0.1", 4001)});
  const auto made = make_tcp_pairs(wanted);
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().code, ErrorCode::kInvalid);
}

TEST(SocketNameTest, OnlyInternetAddresses) {
  EXPECT_FALSE(SocketName::from_bytes(""));
  EXPECT_FALSE(SocketName::from_bytes(std::string(16, '\0')));
  EXPECT_TRUE(six("fe80::1", 5).is_link_local());
  EXPECT_FALSE(six("2001:db8::1", 5).is_link_local());
}

}  // namespace
}  // namespace migrate
