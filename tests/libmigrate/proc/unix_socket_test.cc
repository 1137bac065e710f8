#include "libmigrate/proc/unix_socket.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <optional>
#include <string>
#include <thread>

#include "base/unique_fd.h"
#include "tests/base/code_of.h"

namespace migrate {
namespace {

std::uint64_t inode_of(const UniqueFd& socket) {
  struct stat status {};
  EXPECT_EQ(::fstat(socket.get(), &status), 0);
  return status.st_ino;
}

UnixSocket told_of(const UniqueFd& socket) {
  const auto told = read_unix_socket(inode_of(socket));
  if (!told) {
    ADD_FAILURE() << told.error().message();
    return {};
  }
  return *told;
}

class UnixSocketTest : public testing::TestWithParam<int> {
 protected:
  void SetUp() override {
    std::array<int, 2> ends{};
    ASSERT_EQ(::socketpair(AF_UNIX, GetParam() | SOCK_CLOEXEC, 0, ends.data()), 0);
    first_.reset(ends[0]);
    second_.reset(ends[1]);
  }
  void send(const UniqueFd& from, const std::string& text) {
    ASSERT_EQ(::send(from.get(), text.data(), text.size(), 0), static_cast<ssize_t>(text.size()));
  }

  UniqueFd first_;
  UniqueFd second_;
};

TEST_P(UnixSocketTest, OfAPairTellsItsPeer) {
  const UnixSocket one = told_of(first_);
  EXPECT_EQ(one.peer, inode_of(second_));
  EXPECT_EQ(told_of(second_).peer, inode_of(first_));
  EXPECT_FALSE(one.listens);
  EXPECT_FALSE(one.has_name);
  EXPECT_EQ(one.shutdown, 0U);
  EXPECT_EQ(one.unread_bytes, 0U);
  EXPECT_EQ(one.sent_bytes, 0U);
}

TEST_P(UnixSocketTest, WhatIsUnreadIsToldOfTheReaderAndItsMemoryOfTheSender) {
  send(first_, "seven b");
  const UnixSocket reader = told_of(second_);
  EXPECT_EQ(reader.unread_bytes, 7U);
  EXPECT_EQ(reader.sent_bytes, 0U);
  const UnixSocket sender = told_of(first_);
  EXPECT_EQ(sender.unread_bytes, 0U);
  EXPECT_GT(sender.sent_bytes, 7U);  // With what the kernel needs beside it.
}

TEST_P(UnixSocketTest, ShutdownIsToldByDirection) {
  ASSERT_EQ(::shutdown(first_.get(), SHUT_WR), 0);
  EXPECT_EQ(told_of(first_).shutdown, 2U);
  if (GetParam() != SOCK_DGRAM) {
    EXPECT_EQ(told_of(second_).shutdown, 1U);  // The other end of a connection hears of it.
  }
  ASSERT_EQ(::shutdown(first_.get(), SHUT_RD), 0);
  EXPECT_EQ(told_of(first_).shutdown, 3U);
}

TEST_P(UnixSocketTest, AClosedPeerIsNoneAndNotNobody) {
  const std::uint64_t closed = inode_of(second_);
  second_.reset();
  const UnixSocket left = told_of(first_);
  if (left.peer) {
    EXPECT_EQ(*left.peer, 0U);
  } else {
    EXPECT_EQ(GetParam(), SOCK_DGRAM);
  }
  EXPECT_EQ(test::code_of(read_unix_socket(closed)), ErrorCode::kNotFound);
}

INSTANTIATE_TEST_SUITE_P(Kinds, UnixSocketTest,
                         testing::Values(SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET));

TEST(UnixSockets, AListenerAndWhatItAccepts) {
  const UniqueFd listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  EXPECT_FALSE(told_of(listener).has_name);
  EXPECT_EQ(told_of(listener).peer, std::nullopt);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;  // The kernel chooses a name.
  ASSERT_EQ(::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), sizeof(sa_family_t)), 0);
  EXPECT_TRUE(told_of(listener).has_name);
  EXPECT_FALSE(told_of(listener).listens);
  ASSERT_EQ(::listen(listener.get(), 1), 0);
  EXPECT_TRUE(told_of(listener).listens);
  socklen_t length = sizeof(address);
  ASSERT_EQ(::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &length), 0);
  const UniqueFd client(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  ASSERT_EQ(::connect(client.get(), reinterpret_cast<sockaddr*>(&address), length), 0);
  const UniqueFd accepted(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  ASSERT_TRUE(accepted.valid());
  EXPECT_TRUE(told_of(accepted).has_name);
  EXPECT_FALSE(told_of(client).has_name);
  EXPECT_EQ(told_of(client).peer, inode_of(accepted));
}

TEST(UnixSockets, WhatIsNoneIsNotFound) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
  const UniqueFd reader(ends[0]);
  const UniqueFd writer(ends[1]);
  EXPECT_EQ(test::code_of(read_unix_socket(inode_of(reader))), ErrorCode::kNotFound);
  EXPECT_FALSE(read_unix_socket(0));  // What sock_diag takes for all of them.
}

TEST(UnixSockets, ThoseOfAnotherNetworkAreNotFound) {
  if (::geteuid() != 0) {
    GTEST_SKIP() << "namespaces are root's to make";
  }
  const UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  std::optional<Result<UnixSocket>> there;
  std::thread elsewhere([&] {
    if (::unshare(CLONE_NEWNET) == 0) {
      there = read_unix_socket(inode_of(socket));
    }
  });
  elsewhere.join();
  ASSERT_TRUE(there);
  ASSERT_FALSE(there->has_value());
  EXPECT_EQ(there->error().code, ErrorCode::kNotFound) << there->error().message();
}

}  // namespace
}  // namespace migrate
