#include "transport/tcp.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <array>
#include <chrono>
#include <thread>

#include "tests/transport/channel_factories.h"

namespace migrate {

std::pair<UniqueFd, UniqueFd> test::connected_tcp_sockets() {
  auto listener = TcpListener::create(Address{"tcp", "127.0.0.1", 0}).value();
  UniqueFd left = connect_tcp(Address{"tcp", "127.0.0.1", listener.port()}, 5000).value();
  return {std::move(left), std::move(listener.accept(5000).value().fd)};
}

namespace {

void send_raw(int fd, std::span<const unsigned char> bytes) {
  ASSERT_EQ(::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL), std::ssize(bytes));
}

int option_of(int fd, int level, int name) {
  int value = -1;
  socklen_t length = sizeof value;
  EXPECT_EQ(::getsockopt(fd, level, name, &value, &length), 0);
  return value;
}

struct RawPeer {
  UniqueFd raw;
  std::unique_ptr<TcpChannel> channel;

  RawPeer() {
    auto [left, right] = test::connected_tcp_sockets();
    raw = std::move(left);
    channel = TcpChannel::create(std::move(right)).value();
  }
};

TEST(TcpListener, AcceptsAndNamesThePeer) {
  auto listener = TcpListener::create(Address{"tcp", "127.0.0.1", 0}).value();
  EXPECT_NE(listener.port(), 0);
  EXPECT_EQ(listener.accept(0).error().code, ErrorCode::kRetry);
  const auto fd = connect_tcp(Address{"tcp", "127.0.0.1", listener.port()}, 1000);
  ASSERT_TRUE(fd) << fd.error().message();
  const auto accepted = listener.accept(1000);
  ASSERT_TRUE(accepted) << accepted.error().message();
  EXPECT_TRUE(accepted->peer.starts_with("tcp://127.0.0.1:")) << accepted->peer;
  EXPECT_EQ(peer_name(fd->get()), "tcp://127.0.0.1:" + std::to_string(listener.port()));
  for (const int end : {fd->get(), accepted->fd.get()}) {
    EXPECT_EQ(option_of(end, IPPROTO_TCP, TCP_NODELAY), 1);
    EXPECT_EQ(option_of(end, SOL_SOCKET, SO_KEEPALIVE), 1);
    EXPECT_EQ(option_of(end, IPPROTO_TCP, TCP_USER_TIMEOUT), 5000);
  }
}

TEST(TcpListener, ReportsAPortInUse) {
  auto listener = TcpListener::create(Address{"tcp", "127.0.0.1", 0}).value();
  const auto second = TcpListener::create(Address{"tcp", "127.0.0.1", listener.port()});
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().sys_errno, EADDRINUSE);
  EXPECT_NE(second.error().message().find(std::to_string(listener.port())), std::string::npos);
}

TEST(ConnectTcp, ReportsRefusalAndWrongSchemes) {
  std::uint16_t port = 0;
  { port = TcpListener::create(Address{"tcp", "127.0.0.1", 0}).value().port(); }
  const auto refused = connect_tcp(Address{"tcp", "127.0.0.1", port}, 1000);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kPeerLost);
  EXPECT_EQ(connect_tcp(Address{"rdma", "127.0.0.1", port}, 1000).error().code,
            ErrorCode::kInvalid);
}

TEST(ConnectTcp, GivesUpInTime) {
  // A full backlog: further connections get no answer.
  UniqueFd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  ASSERT_EQ(::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), length), 0);
  ASSERT_EQ(::listen(listener.get(), 0), 0);
  ASSERT_EQ(::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &length), 0);
  const Address target{"tcp", "127.0.0.1", ntohs(address.sin_port)};
  std::vector<UniqueFd> fillers;
  Result<UniqueFd> last;
  for (int i = 0; i < 4 && last; ++i) {
    last = connect_tcp(target, 100);
    if (last) {
      fillers.push_back(std::move(*last));
    }
  }
  ASSERT_FALSE(last);
  EXPECT_EQ(last.error().code, ErrorCode::kRetry) << last.error().message();
}

TEST(TcpChannel, CutsOffLengthsThatCannotBe) {
  const std::uint32_t above = kMaxMessageBytes + 1;
  const std::array<std::uint32_t, 3> lengths{0, above, 0xffffffffU};
  for (const std::uint32_t length : lengths) {
    RawPeer peer;
    std::array<unsigned char, 8> frame{};
    for (unsigned i = 0; i < 4; ++i) {
      frame[i] = static_cast<unsigned char>(length >> (8 * i));
    }
    send_raw(peer.raw.get(), frame);
    EXPECT_EQ(peer.channel->receive(0, 1000).error().code, ErrorCode::kCorrupt);
    EXPECT_EQ(peer.channel->try_receive().error().code, ErrorCode::kCorrupt);
    EXPECT_TRUE(peer.channel->arm().value());
  }
}

TEST(TcpChannel, PutsPiecesTogether) {
  RawPeer peer;
  const std::array<unsigned char, 9> frames{3, 0, 0, 0, 'a', 'b', 'c', 1, 0};
  for (const unsigned char byte : frames) {
    EXPECT_FALSE(peer.channel->try_receive().value().has_value());
    send_raw(peer.raw.get(), std::span(&byte, 1));
    if (byte == 'c') {
      EXPECT_EQ(peer.channel->receive(0, 1000).value().size(), 3U);
    }
  }
  const std::array<unsigned char, 3> rest{0, 0, 'z'};
  send_raw(peer.raw.get(), rest);
  EXPECT_EQ(peer.channel->receive(0, 1000).value()[0], std::byte{'z'});
}

TEST(TcpChannel, ReportsAMessageCutShort) {
  const std::array<unsigned char, 6> small{100, 0, 0, 0, 'a', 'b'};
  const std::array<unsigned char, 6> large{0, 0, 16, 0, 'a', 'b'};
  for (const auto& start : {small, large}) {
    RawPeer peer;
    send_raw(peer.raw.get(), start);
    peer.raw.reset();
    EXPECT_EQ(peer.channel->receive().error().code, ErrorCode::kPeerLost);
    EXPECT_EQ(peer.channel->receive().error().code, ErrorCode::kPeerLost);
  }
}

TEST(TcpChannel, WorksOverUnixSockets) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
  auto left = TcpChannel::create(UniqueFd(ends[0])).value();
  auto right = TcpChannel::create(UniqueFd(ends[1])).value();
  const std::string text = "hello";
  ASSERT_TRUE(left->send_one(std::as_bytes(std::span(text))));
  EXPECT_EQ(right->receive().value().size(), text.size());
}

}  // namespace
}  // namespace migrate
