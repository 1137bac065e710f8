#include "libmigrate/cell/internal_protocol.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <string>
#include <vector>

#include "base/file.h"
#include "tests/base/code_of.h"

namespace migrate::cell {
namespace {

/// Both ends of the kind of socket over which worker, init and seed talk.
class ProtocolTest : public testing::Test {
 protected:
  void SetUp() override {
    std::array<int, 2> ends{};
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()), 0);
    near_.reset(ends[0]);
    far_.reset(ends[1]);
  }
  static std::size_t descriptors() { return list_directory("/proc/self/fd").value().size(); }
  static ino_t inode(int fd) {
    struct stat status {};
    EXPECT_EQ(::fstat(fd, &status), 0);
    return status.st_ino;
  }

  UniqueFd near_;
  UniqueFd far_;
};

TEST_F(ProtocolTest, AMessageArrivesWholeWithItsDescriptor) {
  Message sent{.kind = MessageKind::kKeep,
               .value = -7,
               .kept = {.kind = Kept::Kind::kRelayUnread, .number = 3, .parent = 2}};
  std::strcpy(sent.text.data(), "what failed");
  const int fd = near_.get();
  ASSERT_TRUE(send_message(near_.get(), sent, std::span(&fd, 1)));
  const auto received = receive_message(far_.get(), true);
  ASSERT_TRUE(received);
  EXPECT_EQ(received->message.kind, MessageKind::kKeep);
  EXPECT_EQ(received->message.value, -7);
  EXPECT_EQ(received->message.kept, sent.kept);
  EXPECT_EQ(received->message.kept.parent, 2U);
  EXPECT_STREQ(received->message.text.data(), "what failed");
  EXPECT_EQ(inode(received->descriptor.get()), inode(near_.get()));
  EXPECT_EQ(received->sender, 0);  // Nobody has asked who it is.
  ASSERT_TRUE(send_message(near_.get(), {.kind = MessageKind::kDrop}, {}));
  EXPECT_FALSE(receive_message(far_.get(), true)->descriptor.valid());
}

TEST_F(ProtocolTest, TheSenderIsToldWhereOneAsks) {
  const int yes = 1;
  ASSERT_EQ(::setsockopt(far_.get(), SOL_SOCKET, SO_PASSCRED, &yes, sizeof(yes)), 0);
  ASSERT_TRUE(send_message(near_.get(), {}, {}));
  EXPECT_EQ(receive_message(far_.get(), true)->sender, ::getpid());
}

TEST_F(ProtocolTest, TextAlwaysEnds) {
  Message sent;
  sent.text.fill('x');
  ASSERT_TRUE(send_message(near_.get(), sent, {}));
  const auto received = receive_message(far_.get(), true);
  EXPECT_EQ(std::string(received->message.text.data()), std::string(sent.text.size() - 1, 'x'));
}

TEST_F(ProtocolTest, NothingThereIsNotTheEnd) {
  EXPECT_EQ(test::code_of(receive_message(far_.get(), false)), ErrorCode::kRetry);
  ASSERT_TRUE(send_message(near_.get(), {.value = 5}, {}));
  near_.reset();  // What was sent before it is received.
  EXPECT_EQ(receive_message(far_.get(), false)->message.value, 5);
  EXPECT_EQ(test::code_of(receive_message(far_.get(), false)), ErrorCode::kPeerLost);
  EXPECT_EQ(test::code_of(receive_message(far_.get(), true)), ErrorCode::kPeerLost);
  EXPECT_FALSE(send_message(far_.get(), {}, {}));  // And no SIGPIPE.
}

TEST_F(ProtocolTest, BytesThatAreNoMessageEndTheConnection) {
  for (const std::size_t length : {std::size_t{1}, sizeof(Message) - 1}) {
    const std::vector<char> bytes(length, 'x');
    ASSERT_EQ(::send(near_.get(), bytes.data(), length, 0), static_cast<ssize_t>(length));
    EXPECT_EQ(test::code_of(receive_message(far_.get(), true)), ErrorCode::kPeerLost) << length;
  }
}

TEST_F(ProtocolTest, AsManyDescriptorsGoAsThereIsRoomFor) {
  const std::vector<int> most(250, near_.get());
  const std::vector<int> more(251, near_.get());
  EXPECT_TRUE(send_message(near_.get(), {}, most));
  EXPECT_EQ(test::code_of(send_message(near_.get(), {}, more)), ErrorCode::kInvalid);
}

TEST_F(ProtocolTest, OnlyOneOfSeveralDescriptorsIsTakenAndNoneIsLeftOpen) {
  const std::array<int, 3> several{near_.get(), far_.get(), 0};
  ASSERT_TRUE(send_message(near_.get(), {}, several));
  const std::size_t before = descriptors();
  {
    const auto received = receive_message(far_.get(), true);
    ASSERT_TRUE(received);
    EXPECT_EQ(inode(received->descriptor.get()), inode(near_.get()));
    EXPECT_EQ(descriptors(), before + 1);
  }
  EXPECT_EQ(descriptors(), before);
}

}  // namespace
}  // namespace migrate::cell
