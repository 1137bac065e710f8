#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <string>
#include <utility>

#include "tests/libmigrate/carriers/hosts.h"

namespace migrate {
namespace {

using Refusals = std::vector<std::string>;

struct Sockets {
  UniqueFd first;
  UniqueFd second;
};

Sockets pair_of(int type) {
  std::array<int, 2> ends{};
  EXPECT_EQ(::socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, ends.data()), 0);
  return {UniqueFd(ends[0]), UniqueFd(ends[1])};
}

void tell(const UniqueFd& end, const std::string& text) {
  EXPECT_EQ(::send(end.get(), text.data(), text.size(), MSG_DONTWAIT),
            static_cast<ssize_t>(text.size()));
}

std::string hear(const UniqueFd& end) {
  std::array<char, 4096> buffer{};
  const ssize_t count = ::recv(end.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
  return count < 0 ? "nothing" : std::string(buffer.data(), static_cast<std::size_t>(count));
}

/// Moves a pair, whose first end was found first.
Sockets moved(test::Source& source, const Sockets& ends) {
  EXPECT_EQ(source.find(ends.first.get()), 0);
  if (ends.second.valid()) {
    EXPECT_EQ(source.find(ends.second.get()), 1);
  }
  source.settle();
  EXPECT_TRUE(source.refusals().empty());
  EXPECT_TRUE(source.capture());
  EXPECT_EQ(test::flaw_in(source.objects()), "");
  test::Destination destination(source.objects());
  Sockets made;
  made.first = destination.make(source.file(0)).value();
  if (ends.second.valid()) {
    made.second = destination.make(source.file(1)).value();
  }
  return made;
}

TEST(SocketPairCarrier, AStreamTravelsWithWhatWaitsInItWhichStaysThere) {
  const Sockets ends = pair_of(SOCK_STREAM);
  tell(ends.first, "to the second, ");
  tell(ends.first, "in two pieces");
  tell(ends.second, "to the first");
  test::Source source;
  const Sockets made = moved(source, ends);
  ASSERT_EQ(source.objects().socket_pairs_size(), 1);
  for (const Sockets* each : {&ends, &made}) {
    EXPECT_EQ(hear(each->second), "to the second, in two pieces");
    EXPECT_EQ(hear(each->first), "to the first");
    tell(each->first, "more");
    EXPECT_EQ(hear(each->second), "more");
  }
}

TEST(SocketPairCarrier, MessagesKeepTheirBounds) {
  for (const int type : {SOCK_DGRAM, SOCK_SEQPACKET}) {
    const Sockets ends = pair_of(type);
    tell(ends.first, "one");
    tell(ends.first, std::string(3000, 'x'));
    if (type == SOCK_DGRAM) {
      tell(ends.first, "");
    }
    tell(ends.first, "last");
    test::Source source;
    const Sockets made = moved(source, ends);
    for (const Sockets* each : {&made, &ends}) {
      EXPECT_EQ(hear(each->second), "one");
      EXPECT_EQ(hear(each->second).size(), 3000U);
      if (type == SOCK_DGRAM) {
        EXPECT_EQ(hear(each->second), "");
      }
      EXPECT_EQ(hear(each->second), "last");
      EXPECT_EQ(hear(each->second), "nothing");
    }
  }
}

TEST(SocketPairCarrier, AFullBufferIsFullAgain) {
  const Sockets ends = pair_of(SOCK_STREAM);
  std::size_t bytes = 0;
  const std::string piece(1000, 'x');
  while (::send(ends.first.get(), piece.data(), piece.size(), MSG_DONTWAIT) > 0) {
    bytes += piece.size();
  }
  test::Source source;
  const Sockets made = moved(source, ends);
  EXPECT_EQ(source.objects().socket_pairs(0).second().unread(0).size(), bytes);
  std::size_t heard = 0;
  for (std::string some = hear(made.second); some != "nothing"; some = hear(made.second)) {
    heard += some.size();
  }
  EXPECT_EQ(heard, bytes);
}

TEST(SocketPairCarrier, AnEndThatWasClosedIsClosed) {
  Sockets ends = pair_of(SOCK_STREAM);
  tell(ends.second, "last words");
  ends.second.reset();
  test::Source source;
  const Sockets made = moved(source, ends);
  EXPECT_EQ(hear(made.first), "last words");
  EXPECT_EQ(hear(made.first), "");
}

TEST(SocketPairCarrier, AnEndThatWasClosedWithUnreadBytesHasResetTheOther) {
  Sockets ends = pair_of(SOCK_STREAM);
  tell(ends.first, "unread");
  ends.second.reset();
  test::Source source;
  const Sockets made = moved(source, ends);
  EXPECT_EQ(hear(made.first), "nothing");
  EXPECT_EQ(errno, ECONNRESET);
}

TEST(SocketPairCarrier, OfPacketsWhoseOtherEndIsClosedThereIsTheEnd) {
  Sockets ends = pair_of(SOCK_SEQPACKET);
  ASSERT_EQ(::shutdown(ends.first.get(), SHUT_RDWR), 0);
  ends.second.reset();
  test::Source source;
  const Sockets made = moved(source, ends);
  EXPECT_EQ(hear(made.first), "");
}

TEST(SocketPairCarrier, OptionsAndShutdownTravel) {
  const Sockets ends = pair_of(SOCK_STREAM);
  const int yes = 1;
  const int bytes = 12345;
  ASSERT_EQ(::setsockopt(ends.first.get(), SOL_SOCKET, SO_PASSCRED, &yes, sizeof(yes)), 0);
  ASSERT_EQ(::setsockopt(ends.second.get(), SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes)), 0);
  ASSERT_EQ(::shutdown(ends.second.get(), SHUT_WR), 0);
  test::Source source;
  const Sockets made = moved(source, ends);
  int value = 0;
  socklen_t size = sizeof(value);
  ASSERT_EQ(::getsockopt(made.first.get(), SOL_SOCKET, SO_PASSCRED, &value, &size), 0);
  EXPECT_EQ(value, 1);
  ASSERT_EQ(::getsockopt(made.second.get(), SOL_SOCKET, SO_SNDBUF, &value, &size), 0);
  EXPECT_EQ(value, 2 * bytes);
  EXPECT_EQ(hear(made.first), "");
  EXPECT_EQ(::send(made.second.get(), "x", 1, MSG_NOSIGNAL), -1);
}

TEST(SocketPairCarrier, TwoDescriptorsOfOneEndAreOneOpenFile) {
  const Sockets ends = pair_of(SOCK_SEQPACKET);
  const UniqueFd again(::dup(ends.second.get()));
  tell(ends.first, "once");
  test::Source source;
  ASSERT_GE(source.find(ends.first.get()), 0);
  ASSERT_GE(source.find(ends.second.get()), 0);
  ASSERT_GE(source.find(again.get()), 0);
  ASSERT_TRUE(source.capture());
  EXPECT_EQ(source.objects().socket_pairs(0).second().unread_size(), 1);
}

TEST(SocketPairCarrier, WhatOthersMayKnowIsRefused) {
  test::Source source;
  const UniqueFd alone(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  EXPECT_EQ(source.find(alone.get()), -1);
  const UniqueFd named(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  ASSERT_EQ(::bind(named.get(), reinterpret_cast<sockaddr*>(&name), sizeof(sa_family_t)), 0);
  EXPECT_EQ(source.find(named.get()), -1);
  const UniqueFd network(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 0));
  EXPECT_EQ(source.find(network.get()), -1);
  EXPECT_EQ(source.refusals(), (Refusals{"SOCKET", "SOCKET", "SOCKET_KIND"}));
}

TEST(SocketPairCarrier, AnEmptyPacketIsNoEnd) {
  const Sockets ends = pair_of(SOCK_SEQPACKET);
  tell(ends.first, "a");
  tell(ends.first, "");
  tell(ends.first, "b");
  test::Source source;
  const Sockets made = moved(source, ends);
  EXPECT_EQ(hear(made.second), "a");
  EXPECT_EQ(hear(made.second), "");
  EXPECT_EQ(hear(made.second), "b");
}

TEST(SocketPairCarrier, AnEmptyMessageThatWasPeekedAtIsMissed) {
  const Sockets ends = pair_of(SOCK_DGRAM);
  tell(ends.first, "");
  tell(ends.first, "abc");
  std::array<char, 8> buffer{};
  ASSERT_EQ(::recv(ends.second.get(), buffer.data(), buffer.size(), MSG_PEEK), 0);
  test::Source source;
  ASSERT_EQ(source.find(ends.first.get()), 0);
  ASSERT_EQ(source.find(ends.second.get()), 1);
  const auto captured = source.capture();
  ASSERT_FALSE(captured);
  EXPECT_EQ(captured.error().code, ErrorCode::kRefused);
}

TEST(SocketPairCarrier, AConnectionThatNobodyHasAcceptedIsRefused) {
  const UniqueFd server(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  ASSERT_EQ(::bind(server.get(), reinterpret_cast<sockaddr*>(&name), sizeof(sa_family_t)), 0);
  socklen_t size = sizeof(name);
  ASSERT_EQ(::getsockname(server.get(), reinterpret_cast<sockaddr*>(&name), &size), 0);
  ASSERT_EQ(::listen(server.get(), 1), 0);
  const UniqueFd client(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  ASSERT_EQ(::connect(client.get(), reinterpret_cast<sockaddr*>(&name), size), 0);
  test::Source source;
  EXPECT_EQ(source.find(client.get()), -1);
  EXPECT_EQ(source.refusals(), Refusals{"SOCKET"});
}

TEST(SocketPairCarrier, DescriptorsUnderWayAreRefused) {
  const Sockets ends = pair_of(SOCK_STREAM);
  char byte = 'x';
  iovec vector{&byte, 1};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  cmsghdr* const header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  const int fd = STDIN_FILENO;
  std::copy_n(reinterpret_cast<const unsigned char*>(&fd), sizeof(fd), CMSG_DATA(header));
  ASSERT_EQ(::sendmsg(ends.first.get(), &message, 0), 1);
  test::Source source;
  EXPECT_EQ(source.find(ends.second.get()), -1);
  EXPECT_EQ(source.refusals(), Refusals{"SOCKET"});
}

TEST(SocketPairCarrier, WhatNoSocketHasIsMalformed) {
  wire::Objects objects;
  wire::OpenFile& file = *objects.add_files();
  file.set_kind(wire::OpenFile::SOCKET);
  EXPECT_NE(test::flaw_in(objects), "");
  wire::SocketPair& pair = *objects.add_socket_pairs();
  EXPECT_NE(test::flaw_in(objects), "") << "no type";
  pair.set_type(SOCK_STREAM);
  EXPECT_EQ(test::flaw_in(objects), "");
  file.set_object(2);
  EXPECT_NE(test::flaw_in(objects), "");
  file.set_object(1);
  pair.mutable_second()->add_options()->set_name(SO_MARK);
  EXPECT_NE(test::flaw_in(objects), "") << "an option that needs a right";
  pair.mutable_second()->clear_options();
  pair.mutable_first()->set_shutdown(4);
  EXPECT_NE(test::flaw_in(objects), "");
}

}  // namespace
}  // namespace migrate
