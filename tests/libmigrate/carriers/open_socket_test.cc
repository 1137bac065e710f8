#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <string>
#include <vector>

#include "base/unique_fd.h"
#include "libmigrate/links/tcp_socket.h"
#include "tests/libmigrate/carriers/hosts.h"

namespace migrate {
namespace {

using Refusals = std::vector<std::string>;

UniqueFd fresh(int family, int type) {
  return UniqueFd(::socket(family, type | SOCK_CLOEXEC, 0));
}

void set_option(const UniqueFd& fd, int level, int name, int value) {
  ASSERT_EQ(::setsockopt(fd.get(), level, name, &value, sizeof(value)), 0) << name;
}

int option(const UniqueFd& fd, int level, int name) {
  int value = -1;
  socklen_t size = sizeof(value);
  EXPECT_EQ(::getsockopt(fd.get(), level, name, &value, &size), 0) << name;
  return value;
}

const wire::OpenSocket& found(test::Source& source, const UniqueFd& fd) {
  EXPECT_EQ(source.find(fd.get()), 0);
  source.settle();
  EXPECT_EQ(source.refusals(), Refusals{});
  EXPECT_EQ(source.file(0).kind(), wire::OpenFile::OPEN_SOCKET);
  EXPECT_EQ(test::flaw_in(source.objects()), "");
  return source.objects().open_sockets(0);
}

UniqueFd made_anew(test::Source& source) {
  test::Destination destination(source.objects());
  auto made = destination.make(source.file(0));
  EXPECT_TRUE(made) << made.error().message();
  return made ? std::move(*made) : UniqueFd();
}

TEST(OpenSocketCarrier, OneOfTcpIsMadeAnewWithItsOptions) {
  const UniqueFd socket = fresh(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK);
  set_option(socket, IPPROTO_IPV6, IPV6_V6ONLY, 1);
  set_option(socket, SOL_SOCKET, SO_REUSEADDR, 1);
  set_option(socket, SOL_SOCKET, SO_KEEPALIVE, 1);
  set_option(socket, IPPROTO_TCP, TCP_NODELAY, 1);
  set_option(socket, IPPROTO_TCP, TCP_SYNCNT, 3);
  set_option(socket, IPPROTO_TCP, TCP_DEFER_ACCEPT, 7);
  test::Source source;
  const wire::OpenSocket& open = found(source, socket);
  EXPECT_FALSE(open.is_datagram());
  EXPECT_TRUE(open.only_ipv6());
  EXPECT_EQ(open.local(), "");
  const UniqueFd made = made_anew(source);
  EXPECT_EQ(option(made, IPPROTO_IPV6, IPV6_V6ONLY), 1);
  EXPECT_EQ(option(made, SOL_SOCKET, SO_REUSEADDR), 1);
  EXPECT_EQ(option(made, SOL_SOCKET, SO_KEEPALIVE), 1);
  EXPECT_EQ(option(made, IPPROTO_TCP, TCP_NODELAY), 1);
  EXPECT_EQ(option(made, IPPROTO_TCP, TCP_SYNCNT), 3);
  EXPECT_EQ(option(made, IPPROTO_TCP, TCP_DEFER_ACCEPT),
            option(socket, IPPROTO_TCP, TCP_DEFER_ACCEPT));
  EXPECT_NE(::fcntl(made.get(), F_GETFL) & O_NONBLOCK, 0);
  EXPECT_EQ(SocketName::of(made.get())->port(), 0);
}

TEST(OpenSocketCarrier, OneThatIsBoundHasItsNameAndListensLater) {
  if (::geteuid() != 0) {
    GTEST_SKIP() << "needs root";
  }
  SocketName name;
  test::Source source;
  {
    const UniqueFd socket = fresh(AF_INET, SOCK_STREAM);
    const SocketName any = SocketName::loopback(0);
    ASSERT_EQ(::bind(socket.get(), any.address(), any.size()), 0);
    name = *SocketName::of(socket.get());
    EXPECT_EQ(found(source, socket).local(), name.to_bytes());
  }
  const UniqueFd made = made_anew(source);
  EXPECT_EQ(*SocketName::of(made.get()), name);
  EXPECT_EQ(option(made, IPPROTO_IP, IP_FREEBIND), 0);
  ASSERT_EQ(::listen(made.get(), 1), 0);
  const UniqueFd caller = fresh(AF_INET, SOCK_STREAM);
  EXPECT_EQ(::connect(caller.get(), name.address(), name.size()), 0);
}

// An address that no interface here has: in the network of its home it is one.
TEST(OpenSocketCarrier, ANameNeedsNoInterface) {
  test::Source source;
  const UniqueFd socket = fresh(AF_INET, SOCK_STREAM);
  found(source, socket);
  source.objects().mutable_open_sockets(0)->set_local(
      SocketName::of_address(std::string("\xc0\0\2\1", 4), 4711).to_bytes());
  EXPECT_EQ(SocketName::of(made_anew(source).get())->to_string(), "192.0.2.1:4711");
}

TEST(OpenSocketCarrier, OneOfUdpIsMadeAnewWithItsOptions) {
  const UniqueFd socket = fresh(AF_INET, SOCK_DGRAM);
  set_option(socket, SOL_SOCKET, SO_BROADCAST, 1);
  set_option(socket, SOL_SOCKET, SO_RCVBUF, 30'000);
  set_option(socket, IPPROTO_IP, IP_PKTINFO, 1);
  set_option(socket, IPPROTO_IP, IP_TOS, 0x10);
  set_option(socket, IPPROTO_IP, IP_MULTICAST_TTL, 3);
  test::Source source;
  EXPECT_TRUE(found(source, socket).is_datagram());
  const UniqueFd made = made_anew(source);
  EXPECT_EQ(option(made, SOL_SOCKET, SO_TYPE), SOCK_DGRAM);
  EXPECT_EQ(option(made, SOL_SOCKET, SO_BROADCAST), 1);
  EXPECT_EQ(option(made, SOL_SOCKET, SO_RCVBUF), option(socket, SOL_SOCKET, SO_RCVBUF));
  EXPECT_EQ(option(made, IPPROTO_IP, IP_PKTINFO), 1);
  EXPECT_EQ(option(made, IPPROTO_IP, IP_TOS), 0x10);
  EXPECT_EQ(option(made, IPPROTO_IP, IP_MULTICAST_TTL), 3);
}

// Of a guest: at home it stays in the real one's queue.
TEST(OpenSocketCarrier, WhatWaitsGoesAlongAndStaysToo) {
  const UniqueFd socket = fresh(AF_INET, SOCK_DGRAM);
  const SocketName any = SocketName::none_of(AF_INET);
  ASSERT_EQ(::bind(socket.get(), any.address(), any.size()), 0);
  const SocketName to = SocketName::loopback(SocketName::of(socket.get())->port());
  const UniqueFd writer = fresh(AF_INET, SOCK_DGRAM);
  const std::vector<std::string> sent{"first", "", std::string(20'000, 'x')};
  for (const std::string& text : sent) {
    ASSERT_EQ(::sendto(writer.get(), text.data(), text.size(), 0, to.address(), to.size()),
              ssize_t(text.size()));
  }
  test::Source home;
  EXPECT_FALSE(found(home, socket).content_travels());
  ASSERT_TRUE(home.capture());
  EXPECT_EQ(home.objects().open_sockets(0).unread_size(), 0);
  test::Source source;
  source.guest = true;
  EXPECT_TRUE(found(source, socket).content_travels());
  ASSERT_TRUE(source.capture());
  const wire::OpenSocket& open = source.objects().open_sockets(0);
  ASSERT_EQ(open.unread_size(), 3);
  const std::uint16_t port = SocketName::of(writer.get())->port();
  for (int i = 0; i < open.unread_size(); ++i) {
    EXPECT_EQ(open.unread(i).content(), sent[static_cast<std::size_t>(i)]);
    EXPECT_EQ(open.unread(i).local(), to.to_bytes());
    EXPECT_EQ(open.unread(i).peer(), SocketName::loopback(port).to_bytes());
    std::string room(30'000, '\0');
    EXPECT_EQ(::recv(socket.get(), room.data(), room.size(), MSG_DONTWAIT),
              ssize_t(sent[static_cast<std::size_t>(i)].size()));
  }
  EXPECT_EQ(test::flaw_in(source.objects()), "");
  EXPECT_EQ(option(socket, IPPROTO_IP, IP_PKTINFO), 0);
  EXPECT_EQ(option(socket, SOL_SOCKET, SO_PEEK_OFF), -1);
  wire::Objects hostile = source.objects();
  hostile.mutable_open_sockets(0)->mutable_unread(0)->set_peer("x");
  EXPECT_NE(test::flaw_in(hostile), "");
  hostile = source.objects();
  hostile.mutable_open_sockets(0)->mutable_unread(0)->set_content(std::string(70'000, 'x'));
  EXPECT_NE(test::flaw_in(hostile), "");
}

TEST(OpenSocketCarrier, OneOfUdpThatIsConnectedIsConnectedAnew) {
  const UniqueFd peer = fresh(AF_INET, SOCK_DGRAM);
  const SocketName any = SocketName::loopback(0);
  ASSERT_EQ(::bind(peer.get(), any.address(), any.size()), 0);
  const SocketName to = *SocketName::of(peer.get());
  test::Source source;
  SocketName local;
  {
    const UniqueFd socket = fresh(AF_INET, SOCK_DGRAM);
    ASSERT_EQ(::connect(socket.get(), to.address(), to.size()), 0);
    local = *SocketName::of(socket.get());
    EXPECT_EQ(found(source, socket).peer(), to.to_bytes());
  }
  const UniqueFd made = made_anew(source);
  EXPECT_EQ(*SocketName::of(made.get()), local);
  EXPECT_EQ(*SocketName::of_peer(made.get()), to);
}

TEST(OpenSocketCarrier, WhatIsNotCarriedHasItsCode) {
  const UniqueFd member = fresh(AF_INET, SOCK_DGRAM);
  ip_mreqn group{};
  group.imr_multiaddr.s_addr = htonl(INADDR_UNSPEC_GROUP | 0x010203);
  group.imr_address.s_addr = htonl(INADDR_LOOPBACK);
  ASSERT_EQ(::setsockopt(member.get(), IPPROTO_IP, IP_ADD_MEMBERSHIP, &group, sizeof(group)), 0);
  const UniqueFd corked = fresh(AF_INET, SOCK_DGRAM);
  set_option(corked, IPPROTO_UDP, UDP_CORK, 1);
  const UniqueFd more = fresh(AF_INET, SOCK_DGRAM);
  const SocketName to = SocketName::loopback(9);
  ASSERT_EQ(::sendto(more.get(), "x", 1, MSG_MORE, to.address(), to.size()), 1);
  const UniqueFd optioned = fresh(AF_INET, SOCK_STREAM);
  const std::string nothing(4, '\1');  // IPOPT_NOOP
  ASSERT_EQ(::setsockopt(optioned.get(), IPPROTO_IP, IP_OPTIONS, nothing.data(),
                         static_cast<socklen_t>(nothing.size())),
            0);
  const UniqueFd ended = fresh(AF_INET, SOCK_STREAM);
  ::shutdown(ended.get(), SHUT_RDWR);
  const UniqueFd raw(::socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_UDP));
  test::Source source;
  if (raw.valid()) {  // Needs root.
    EXPECT_EQ(source.find(raw.get()), -1);
    EXPECT_EQ(source.refusals(), Refusals{"SOCKET_KIND"});
  }
  test::Source others;
  for (const UniqueFd* each : {&member, &corked, &more, &optioned, &ended}) {
    EXPECT_EQ(others.find(each->get()), -1);
  }
  EXPECT_EQ(others.refusals(), (Refusals{"SOCKET_SETTING", "SOCKET_UNSENT", "SOCKET_UNSENT",
                                         "SOCKET_SETTING", "SOCKET_KIND"}));
}

TEST(OpenSocketCarrier, WhatAPeerSendsIsLookedAt) {
  test::Source source;
  const UniqueFd socket = fresh(AF_INET, SOCK_DGRAM);
  found(source, socket);
  const auto flaw_with = [&](auto change) {
    wire::Objects objects = source.objects();
    change(*objects.mutable_open_sockets(0), *objects.mutable_files(0));
    return test::flaw_in(objects);
  };
  EXPECT_NE(flaw_with([](auto& /*open*/, auto& file) { file.set_object(1); }), "");
  EXPECT_NE(flaw_with([](auto& open, auto& /*file*/) { open.set_domain(AF_UNIX); }), "");
  EXPECT_NE(flaw_with([](auto& open, auto& /*file*/) { open.set_local("x"); }), "");
  EXPECT_NE(flaw_with([](auto& open, auto& /*file*/) {
              open.set_local(SocketName::none_of(AF_INET6).to_bytes());
            }),
            "");
  EXPECT_NE(flaw_with([](auto& open, auto& /*file*/) {
              wire::SocketOption& mark = *open.add_options();
              mark.set_level(SOL_SOCKET);
              mark.set_name(SO_MARK);
              mark.set_value("abcd");
            }),
            "");
}

}  // namespace
}  // namespace migrate
