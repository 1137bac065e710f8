// Connections of TCP, found and made anew; what their bytes do is in connection_relay_test.cc.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <utility>

#include "libmigrate/links/tcp_pair.h"
#include "tests/libmigrate/carriers/hosts.h"

namespace migrate {
namespace {

using Refusals = std::vector<std::string>;

struct Connected {
  UniqueFd ours;
  UniqueFd peer;
};

Connected connected() {
  const UniqueFd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  EXPECT_EQ(::listen(listener.get(), 1), 0);
  const SocketName name = *SocketName::of(listener.get());
  Connected both;
  both.ours.reset(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  EXPECT_EQ(::connect(both.ours.get(), name.address(), name.size()), 0);
  both.peer.reset(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  return both;
}

int option(int fd, int level, int name) {
  int value = -1;
  socklen_t size = sizeof(value);
  EXPECT_EQ(::getsockopt(fd, level, name, &value, &size), 0);
  return value;
}

void set_option(int fd, int level, int name, int value) {
  ASSERT_EQ(::setsockopt(fd, level, name, &value, sizeof(value)), 0);
}

// Closing it resets the connection.
void set_linger(int fd) {
  const linger at_once{.l_onoff = 1, .l_linger = 0};
  ASSERT_EQ(::setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once)), 0);
}

const wire::Connection& found(test::Source& source, int fd) {
  EXPECT_EQ(source.find(fd), 0);
  source.settle();
  EXPECT_EQ(source.refusals(), Refusals{});
  EXPECT_EQ(source.file(0).kind(), wire::OpenFile::CONNECTION);
  EXPECT_EQ(test::flaw_in(source.objects()), "");
  return source.objects().connections(0);
}

TEST(ConnectionCarrier, HasItsNamesAndAStream) {
  const Connected both = connected();
  test::Source source;
  const wire::Connection& connection = found(source, both.ours.get());
  EXPECT_EQ(connection.local(), SocketName::of(both.ours.get())->to_bytes());
  EXPECT_EQ(connection.peer(), SocketName::of(both.peer.get())->to_bytes());
  EXPECT_EQ(connection.stream(), source.file(0).object());
  EXPECT_FALSE(connection.send_ended());
  EXPECT_FALSE(connection.receive_ended());
  EXPECT_EQ(connection.options_size(), 0);
}

TEST(ConnectionCarrier, KeepsItsStreamOverMoves) {
  const Connected both = connected();
  struct stat status {};
  ASSERT_EQ(::fstat(both.ours.get(), &status), 0);
  test::Source source;
  source.known_relays[status.st_ino] = 17;
  EXPECT_EQ(found(source, both.ours.get()).stream(), 17U);
}

TEST(ConnectionCarrier, OfAGuestOnlyThoseOfItsHome) {
  const Connected both = connected();
  struct stat status {};
  ASSERT_EQ(::fstat(both.ours.get(), &status), 0);
  test::Source source;
  source.guest = true;
  source.known_relays[status.st_ino] = 17;
  EXPECT_EQ(source.find(both.ours.get()), 0);
  EXPECT_EQ(source.find(both.peer.get()), -1);
  EXPECT_EQ(source.refusals(), Refusals{"SOCKET_ABROAD"});
}

// Of those that it has accepted or made there neither home nor the relay need to know any more.
TEST(ConnectionCarrier, OfAGuestAlsoWhatIsOver) {
  if (::geteuid() != 0) {
    GTEST_SKIP() << "needs root";
  }
  const TcpPairNames names{SocketName::loopback(1), SocketName::loopback(2)};
  auto pairs = make_tcp_pairs({&names, 1});
  ASSERT_TRUE(pairs) << pairs.error().message();
  const int end = pairs->front().end.get();
  test::Source before;
  before.guest = true;
  EXPECT_EQ(before.find(end), -1);
  EXPECT_EQ(before.refusals(), Refusals{"SOCKET_ABROAD"});
  set_linger(pairs->front().mate.get());
  pairs->front().mate.reset();
  test::Source source;
  source.guest = true;
  const wire::Connection& connection = found(source, end);
  EXPECT_TRUE(connection.is_over());
  EXPECT_TRUE(connection.has_error());
  Connected here = connected();
  set_linger(here.peer.get());
  here.peer.reset();
  test::Source other;
  other.guest = true;
  EXPECT_TRUE(found(other, here.ours.get()).is_over());
}

TEST(ConnectionCarrier, KnowsWhichHalfHasEnded) {
  const Connected both = connected();
  ASSERT_EQ(::shutdown(both.ours.get(), SHUT_WR), 0);
  test::Source ours;
  EXPECT_TRUE(found(ours, both.ours.get()).send_ended());
  test::Source peers;
  EXPECT_FALSE(found(peers, both.peer.get()).send_ended());
  EXPECT_FALSE(peers.objects().connections(0).receive_ended()) << "the other has ended it";
}

TEST(ConnectionCarrier, KnowsWhoReceivesNoMore) {
  const Connected both = connected();
  ASSERT_EQ(::shutdown(both.ours.get(), SHUT_RD), 0);
  test::Source source;
  EXPECT_TRUE(found(source, both.ours.get()).receive_ended());
}

TEST(ConnectionCarrier, CountsWhatTheFrozenProcessHasRead) {
  const Connected both = connected();
  const std::uint64_t before = count_bytes(both.ours.get())->taken;
  ASSERT_EQ(::send(both.peer.get(), "abc", 3, 0), 3);
  ASSERT_EQ(::send(both.peer.get(), "!", 1, MSG_OOB), 1);
  char byte = 0;
  ASSERT_EQ(::recv(both.ours.get(), &byte, 1, 0), 1);
  const wire::Objects draft;
  test::Source source(&draft);
  EXPECT_EQ(found(source, both.ours.get()).taken_bytes() - before, 1U);
  EXPECT_EQ(option(both.ours.get(), SOL_SOCKET, SO_OOBINLINE), 0);
}

TEST(ConnectionCarrier, AnUrgentByteThatWasReadAheadIsRefused) {
  const Connected both = connected();
  const std::uint64_t at_first = count_bytes(both.ours.get())->taken;
  ASSERT_EQ(::send(both.peer.get(), "abc", 3, 0), 3);
  ASSERT_EQ(::send(both.peer.get(), "!", 1, MSG_OOB), 1);
  const wire::Objects draft;
  test::Source before(&draft);
  EXPECT_EQ(before.find(both.ours.get()), 0);
  std::array<char, 3> bytes{};
  ASSERT_EQ(::recv(both.ours.get(), bytes.data(), 1, MSG_OOB), 1);
  test::Source ahead(&draft);
  EXPECT_EQ(ahead.find(both.ours.get()), -1);
  EXPECT_EQ(ahead.refusals(), Refusals{"SOCKET_URGENT"});
  ASSERT_EQ(::recv(both.ours.get(), bytes.data(), 3, MSG_WAITALL), 3);
  test::Source passed(&draft);
  EXPECT_EQ(found(passed, both.ours.get()).taken_bytes() - at_first, 4U);
  ASSERT_EQ(::send(both.peer.get(), "d", 1, 0), 1);
  ASSERT_EQ(::recv(both.ours.get(), bytes.data(), 1, 0), 1);
  EXPECT_EQ(bytes[0], 'd');
}

TEST(ConnectionCarrier, KnowsWhoSpeaksIpv6Only) {
  const UniqueFd listener(::socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0));
  ASSERT_EQ(::listen(listener.get(), 1), 0);
  const SocketName name = *SocketName::of(listener.get());
  const UniqueFd ours(::socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0));
  set_option(ours.get(), IPPROTO_IPV6, IPV6_V6ONLY, 1);
  ASSERT_EQ(::connect(ours.get(), name.address(), name.size()), 0);
  test::Source source;
  EXPECT_TRUE(found(source, ours.get()).only_ipv6());
}

TEST(ConnectionCarrier, ConnectionsThatAreOverHaveNamesOfTheirOwn) {
  Connected one = connected();
  Connected other = connected();
  test::Source source;
  for (Connected* each : {&one, &other}) {
    ASSERT_EQ(::send(each->peer.get(), "x", 1, 0), 1);
    const linger none{.l_onoff = 1, .l_linger = 0};
    ASSERT_EQ(::setsockopt(each->peer.get(), SOL_SOCKET, SO_LINGER, &none, sizeof(none)), 0);
    each->peer.reset();
    EXPECT_GE(source.find(each->ours.get()), 0);
  }
  EXPECT_NE(source.objects().connections(0).peer(), source.objects().connections(1).peer());
}

TEST(ConnectionCarrier, OptionsGoAlong) {
  if (::geteuid() != 0) {
    GTEST_SKIP() << "needs root";
  }
  const Connected both = connected();
  set_option(both.ours.get(), SOL_SOCKET, SO_KEEPALIVE, 1);
  set_option(both.ours.get(), SOL_SOCKET, SO_RCVBUF, 30000);
  set_option(both.ours.get(), IPPROTO_TCP, TCP_NODELAY, 1);
  set_option(both.ours.get(), IPPROTO_TCP, TCP_KEEPIDLE, 77);
  set_option(both.ours.get(), IPPROTO_IP, IP_TOS, 8);
  test::Source source;
  const wire::Connection& connection = found(source, both.ours.get());
  const TcpPairNames names{*SocketName::from_bytes(connection.local()),
                           *SocketName::from_bytes(connection.peer())};
  const auto pairs = make_tcp_pairs({&names, 1});
  ASSERT_TRUE(pairs) << pairs.error().message();
  test::Destination destination(source.objects());
  destination.relays[connection.stream()] = pairs->front().end.get();
  const auto made = destination.make(source.file(0));
  ASSERT_TRUE(made) << made.error().message();
  constexpr std::array<std::pair<int, int>, 7> kOptions{{{SOL_SOCKET, SO_PRIORITY},
                                                         {SOL_SOCKET, SO_KEEPALIVE},
                                                         {SOL_SOCKET, SO_RCVBUF},
                                                         {SOL_SOCKET, SO_REUSEADDR},
                                                         {IPPROTO_TCP, TCP_NODELAY},
                                                         {IPPROTO_TCP, TCP_KEEPIDLE},
                                                         {IPPROTO_IP, IP_TOS}}};
  for (const auto& [level, name] : kOptions) {
    EXPECT_EQ(option(made->get(), level, name), option(both.ours.get(), level, name)) << name;
  }
}

TEST(ConnectionCarrier, WhatIsNotCarriedHasItsCode) {
  const UniqueFd netlink(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 0));
  const Connected busy = connected();
  set_option(busy.ours.get(), SOL_SOCKET, SO_TIMESTAMPING, 1);
  const Connected owned = connected();
  ASSERT_EQ(::fcntl(owned.ours.get(), F_SETOWN, ::getpid()), 0);
  test::Source source;
  for (const UniqueFd* each : {&netlink, &busy.ours, &owned.ours}) {
    EXPECT_EQ(source.find(each->get()), -1);
  }
  EXPECT_EQ(source.refusals(), (Refusals{"SOCKET_KIND", "SOCKET_SETTING", "SOCKET_SETTING"}));
}

TEST(ListenerCarrier, HasItsNameItsBacklogAndItsOptions) {
  const UniqueFd listening(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  set_option(listening.get(), SOL_SOCKET, SO_REUSEADDR, 1);
  set_option(listening.get(), SOL_SOCKET, SO_REUSEPORT, 1);
  ASSERT_EQ(::listen(listening.get(), 17), 0);
  test::Source source;
  ASSERT_EQ(source.find(listening.get()), 0);
  source.settle();
  EXPECT_EQ(source.refusals(), Refusals{});
  EXPECT_EQ(source.file(0).kind(), wire::OpenFile::LISTENER);
  EXPECT_EQ(test::flaw_in(source.objects()), "");
  wire::Listener listener = source.objects().listeners(0);
  EXPECT_EQ(listener.name(), SocketName::of(listening.get())->to_bytes());
  EXPECT_EQ(listener.backlog(), 17U);
  EXPECT_TRUE(listener.shares_port());
  EXPECT_EQ(listener.options_size(), 2);
  EXPECT_EQ(source.file(0).object(), listener.stream());
  wire::Objects objects = source.objects();
  objects.mutable_listeners(0)->set_backlog(0x80000000U);
  EXPECT_NE(test::flaw_in(objects), "");
  objects.mutable_listeners(0)->set_backlog(1);
  objects.mutable_listeners(0)->set_name("nonsense");
  EXPECT_NE(test::flaw_in(objects), "");
}

TEST(ConnectionCarrier, WhatAPeerSendsIsChecked) {
  const Connected both = connected();
  test::Source source;
  found(source, both.ours.get());
  wire::Objects objects = source.objects();
  objects.mutable_connections(0)->set_peer("nonsense");
  EXPECT_NE(test::flaw_in(objects), "");
  objects = source.objects();
  objects.mutable_files(0)->set_object(99);
  EXPECT_NE(test::flaw_in(objects), "");
  objects = source.objects();
  wire::SocketOption& option = *objects.mutable_connections(0)->add_options();
  option.set_level(IPPROTO_TCP);
  option.set_name(TCP_REPAIR);
  EXPECT_NE(test::flaw_in(objects), "");
}

}  // namespace
}  // namespace migrate
