#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>

#include "tests/libmigrate/carriers/hosts.h"

namespace migrate {
namespace {

using Refusals = std::vector<std::string>;

std::uint64_t inode_of(const UniqueFd& fd) {
  struct stat status {};
  EXPECT_EQ(::fstat(fd.get(), &status), 0);
  return status.st_ino;
}

/// Ours is found; the other end is somebody else's.
class UnixConnectionCarrier : public ::testing::Test {
 protected:
  void connect(int type = SOCK_STREAM) {
    std::array<int, 2> ends{};
    ASSERT_EQ(::socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, ends.data()), 0);
    ours.reset(ends[0]);
    theirs.reset(ends[1]);
    source.strangers.insert(inode_of(theirs));
  }

  UniqueFd ours;
  UniqueFd theirs;
  test::Source source;
};

TEST_F(UnixConnectionCarrier, GetsAStream) {
  connect();
  const int large = 100'000;
  ASSERT_EQ(::setsockopt(ours.get(), SOL_SOCKET, SO_SNDBUF, &large, sizeof(large)), 0);
  ASSERT_EQ(source.find(ours.get()), 0);
  source.settle();
  EXPECT_TRUE(source.refusals().empty());
  EXPECT_EQ(source.file(0).kind(), wire::OpenFile::UNIX_CONNECTION);
  EXPECT_EQ(source.file(0).object(), 1U);
  ASSERT_EQ(source.objects().unix_connections_size(), 1);
  const wire::UnixConnection& found = source.objects().unix_connections(0);
  EXPECT_EQ(found.stream(), 1U);
  EXPECT_FALSE(found.send_ended());
  EXPECT_EQ(found.peer_user(), ::geteuid());
  EXPECT_GT(found.options_size(), 0);
  EXPECT_EQ(test::flaw_in(source.objects()), "");
}

TEST_F(UnixConnectionCarrier, KeepsItsStreamWhenItMovesOn) {
  connect();
  source.guest = true;
  source.known_relays[inode_of(ours)] = 17;
  ASSERT_EQ(source.find(ours.get()), 0);
  source.settle();
  EXPECT_EQ(source.file(0).kind(), wire::OpenFile::UNIX_CONNECTION);
  EXPECT_EQ(source.file(0).object(), 17U);
}

TEST_F(UnixConnectionCarrier, OneThatAGuestHasMadeIsRefused) {
  connect();
  source.guest = true;
  EXPECT_EQ(source.find(ours.get()), -1);
  EXPECT_EQ(source.refusals(), Refusals{"SOCKET_ABROAD"});
}

TEST_F(UnixConnectionCarrier, OnlyStreamsAreCarried) {
  connect(SOCK_SEQPACKET);
  EXPECT_EQ(source.find(ours.get()), -1);
  EXPECT_EQ(source.refusals(), Refusals{"SOCKET"});
}

TEST_F(UnixConnectionCarrier, WhoWantsToKnowTheSenderIsRefused) {
  connect();
  const int yes = 1;
  ASSERT_EQ(::setsockopt(ours.get(), SOL_SOCKET, SO_PASSCRED, &yes, sizeof(yes)), 0);
  EXPECT_EQ(source.find(ours.get()), -1);
  EXPECT_EQ(source.refusals(), Refusals{"SOCKET"});
}

TEST_F(UnixConnectionCarrier, TheProcessGetsADescriptorOfTheEnd) {
  connect();
  ASSERT_EQ(::shutdown(ours.get(), SHUT_WR), 0);
  ASSERT_EQ(source.find(ours.get()), 0);
  source.settle();
  EXPECT_TRUE(source.objects().unix_connections(0).send_ended());
  source.file(0).set_flags(O_RDWR | O_NONBLOCK);
  std::array<int, 2> ends{};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
  const UniqueFd end(ends[0]);
  const UniqueFd mate(ends[1]);
  test::Destination destination(source.objects());
  destination.relays[1] = end.get();
  const UniqueFd made = destination.make(source.file(0)).value();
  EXPECT_NE(::fcntl(made.get(), F_GETFL) & O_NONBLOCK, 0);
  ASSERT_EQ(::send(mate.get(), "abc", 3, 0), 3);
  EXPECT_EQ(test::read_now(made.get()), "abc");
  EXPECT_EQ(::send(made.get(), "abc", 3, MSG_NOSIGNAL), -1);
}

TEST_F(UnixConnectionCarrier, WhatNoSocketHasIsMalformed) {
  wire::Objects objects;
  wire::OpenFile& file = *objects.add_files();
  file.set_kind(wire::OpenFile::UNIX_CONNECTION);
  file.set_object(1);
  EXPECT_NE(test::flaw_in(objects), "");
  wire::UnixConnection& connection = *objects.add_unix_connections();
  connection.set_stream(1);
  EXPECT_EQ(test::flaw_in(objects), "");
  connection.set_peer(std::string(109, 'x'));
  EXPECT_NE(test::flaw_in(objects), "");
  connection.set_peer("x");
  connection.set_peer_user(~0U);
  EXPECT_NE(test::flaw_in(objects), "");
}

}  // namespace
}  // namespace migrate
