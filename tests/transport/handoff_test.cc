#include "transport/handoff.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstring>
#include <thread>

#include "base/file.h"
#include "tests/transport/temporary_directory.h"

namespace migrate {
namespace {

using test::TemporaryDirectory;

class HandoffTest : public testing::TestWithParam<UnixKind> {
 protected:
  void SetUp() override {
    std::array<int, 2> ends{};
    ASSERT_EQ(::socketpair(AF_UNIX, static_cast<int>(GetParam()) | SOCK_CLOEXEC, 0, ends.data()),
              0);
    left_ = UniqueFd(ends[0]);
    right_ = UniqueFd(ends[1]);
  }

  void send_raw(std::span<const unsigned char> bytes, std::span<const int> descriptors = {}) {
    alignas(cmsghdr) std::array<char, CMSG_SPACE(4 * sizeof(int))> control{};
    iovec piece{const_cast<unsigned char*>(bytes.data()), bytes.size()};
    msghdr message{};
    message.msg_iov = &piece;
    message.msg_iovlen = 1;
    if (!descriptors.empty()) {
      message.msg_control = control.data();
      message.msg_controllen = CMSG_SPACE(descriptors.size_bytes());
      cmsghdr* header = CMSG_FIRSTHDR(&message);
      header->cmsg_level = SOL_SOCKET;
      header->cmsg_type = SCM_RIGHTS;
      header->cmsg_len = CMSG_LEN(descriptors.size_bytes());
      std::memcpy(CMSG_DATA(header), descriptors.data(), descriptors.size_bytes());
    }
    ASSERT_EQ(::sendmsg(left_.get(), &message, 0), std::ssize(bytes));
  }

  UniqueFd left_;
  UniqueFd right_;
};

std::vector<std::byte> to_bytes(std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

std::size_t open_descriptors() {
  return list_directory("/proc/self/fd").value().size();
}

TEST_P(HandoffTest, PassesADescriptorAndBytes) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
  UniqueFd reader(ends[0]);
  {
    const UniqueFd writer(ends[1]);
    ASSERT_TRUE(send_descriptor(left_.get(), writer.get(), to_bytes("to be written")));
  }
  ASSERT_TRUE(send_descriptor(left_.get(), -1, to_bytes("no descriptor")));
  ASSERT_TRUE(send_descriptor(left_.get(), reader.get(), {}));
  {
    const Handoff first = receive_descriptor(right_.get()).value();
    EXPECT_EQ(first.bytes, to_bytes("to be written"));
    ASSERT_TRUE(first.fd.valid());
    EXPECT_NE(::fcntl(first.fd.get(), F_GETFD) & FD_CLOEXEC, 0);
    ASSERT_TRUE(write_all(first.fd.get(), to_bytes("x")));
  }
  const Handoff second = receive_descriptor(right_.get()).value();
  EXPECT_EQ(second.bytes, to_bytes("no descriptor"));
  EXPECT_FALSE(second.fd.valid());
  const Handoff third = receive_descriptor(right_.get()).value();
  EXPECT_TRUE(third.bytes.empty());
  EXPECT_EQ(read_all(third.fd.get(), "read").value(), "x");
}

TEST_P(HandoffTest, CarriesTheLargestMessageAndWaitsForTheReceiver) {
  const std::vector<std::byte> large(kMaxHandoffBytes, std::byte{7});
  std::thread sender([&] {
    for (int i = 0; i < 20; ++i) {
      ASSERT_TRUE(send_descriptor(left_.get(), left_.get(), large));
    }
  });
  for (int i = 0; i < 20; ++i) {
    const Handoff handoff = receive_descriptor(right_.get(), 5000).value();
    EXPECT_EQ(handoff.bytes, large);
    EXPECT_TRUE(handoff.fd.valid());
  }
  sender.join();
  EXPECT_EQ(
      send_descriptor(left_.get(), -1, std::vector<std::byte>(kMaxHandoffBytes + 1)).error().code,
      ErrorCode::kInvalid);
}

TEST_P(HandoffTest, ReportsSilenceAndLoss) {
  EXPECT_EQ(receive_descriptor(right_.get(), 10).error().code, ErrorCode::kRetry);
  left_.reset();
  EXPECT_EQ(receive_descriptor(right_.get()).error().code, ErrorCode::kPeerLost);
  EXPECT_EQ(send_descriptor(right_.get(), -1, {}).error().code, ErrorCode::kPeerLost);
}

// Linux ends a packet socket for a reader that looks just when the last packet and the end come
// (unix_dgram_recvmsg finds no packet, and then the end), though the packet is there.
TEST_P(HandoffTest, WhoSendsAndClosesAtOnceIsHeard) {
  if (GetParam() != UnixKind::kSequencedPacket) {
    return;
  }
  constexpr int kTimes = 10000;  // Without a second look about one in 8000 was lost.
  std::atomic<int> given = -1;
  std::atomic<int> sent = -1;
  std::thread sender([&] {
    for (int i = 0; i < kTimes; ++i) {
      while (given < i) {
        std::this_thread::yield();
      }
      if (const auto done = send_descriptor(left_.get(), -1, to_bytes("hello")); !done) {
        ADD_FAILURE() << done.error().message();
      }
      left_.reset();
      sent = i;
    }
  });
  for (int i = 0; i < kTimes; ++i) {
    SetUp();
    given = i;
    auto handoff = receive_descriptor(right_.get(), 0);
    while (!handoff && handoff.error().code == ErrorCode::kRetry) {
      handoff = receive_descriptor(right_.get(), 0);
    }
    EXPECT_TRUE(handoff) << i << ": " << handoff.error().message();
    while (sent < i) {
      std::this_thread::yield();
    }
  }
  sender.join();
}

TEST_P(HandoffTest, RefusesMalformedMessagesWithoutLeaks) {
  const std::size_t before = open_descriptors();
  const std::array<unsigned char, 4> empty{};
  const std::array<int, 3> three{left_.get(), left_.get(), right_.get()};
  send_raw(empty, three);
  EXPECT_EQ(receive_descriptor(right_.get()).error().code, ErrorCode::kCorrupt);
  const std::array<unsigned char, 5> lies{0, 0, 0, 1, 0};
  send_raw(lies);
  EXPECT_EQ(receive_descriptor(right_.get()).error().code, ErrorCode::kCorrupt);
  EXPECT_EQ(open_descriptors(), before);
}

TEST_P(HandoffTest, ListenerServesConnections) {
  const TemporaryDirectory directory;
  const std::string path = directory.file("socket");
  auto listener = UnixListener::create(path, 0660, GetParam());
  ASSERT_TRUE(listener) << listener.error().message();
  struct stat status {};
  ASSERT_EQ(::stat(path.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode, S_IFSOCK | 0660U);
  EXPECT_EQ(listener->accept(0).error().code, ErrorCode::kRetry);
  const UniqueFd client = connect_unix(path, GetParam()).value();
  const UniqueFd server = listener->accept(1000).value();
  const ucred peer = peer_credentials(server.get()).value();
  EXPECT_EQ(peer.pid, ::getpid());
  EXPECT_EQ(peer.uid, ::geteuid());
  ASSERT_TRUE(send_descriptor(client.get(), -1, to_bytes("hello")));
  EXPECT_EQ(receive_descriptor(server.get()).value().bytes, to_bytes("hello"));
}

INSTANTIATE_TEST_SUITE_P(Kinds, HandoffTest,
                         testing::Values(UnixKind::kSequencedPacket, UnixKind::kStream),
                         [](const testing::TestParamInfo<UnixKind>& instance) {
                           return instance.param == UnixKind::kStream ? "stream" : "packet";
                         });

TEST(UnixListener, ReplacesOnlyStaleSockets) {
  const TemporaryDirectory directory;
  const std::string path = directory.file("socket");
  for (const UnixKind kind : {UnixKind::kSequencedPacket, UnixKind::kStream}) {
    auto listener = UnixListener::create(path, 0600, kind);
    ASSERT_TRUE(listener) << listener.error().message();
    EXPECT_EQ(UnixListener::create(path, 0600).error().code, ErrorCode::kRefused);
    // What a killed daemon leaves behind: the file without a listener.
    ASSERT_EQ(::link(path.c_str(), directory.file("kept").c_str()), 0);
    *listener = UnixListener::create(directory.file("other"), 0600).value();
    EXPECT_NE(::access(path.c_str(), F_OK), 0);
    ASSERT_EQ(::rename(directory.file("kept").c_str(), path.c_str()), 0);
    EXPECT_EQ(connect_unix(path, kind).error().code, ErrorCode::kPeerLost);
    EXPECT_TRUE(UnixListener::create(path, 0600, kind));
  }
  const UniqueFd file = open_file(path, O_CREAT | O_WRONLY).value();
  EXPECT_EQ(UnixListener::create(path, 0600).error().code, ErrorCode::kRefused);
  EXPECT_EQ(::access(path.c_str(), F_OK), 0);
}

TEST(UnixListener, CopesWithLongPaths) {
  const TemporaryDirectory directory;
  std::string deep = directory.path();
  for (int i = 0; i < 5; ++i) {
    deep += "/" + std::string(40, 'd');
    ASSERT_EQ(::mkdir(deep.c_str(), 0700), 0);
  }
  const std::string path = deep + "/socket";
  const auto listener = UnixListener::create(path, 0600);
  ASSERT_TRUE(listener) << listener.error().message();
  EXPECT_TRUE(connect_unix(path));
  const auto too_long = UnixListener::create(deep + "/" + std::string(100, 's'), 0600);
  ASSERT_FALSE(too_long);
  EXPECT_EQ(too_long.error().code, ErrorCode::kInvalid);
  EXPECT_EQ(connect_unix("").error().code, ErrorCode::kInvalid);
  EXPECT_EQ(connect_unix(directory.file("none")).error().code, ErrorCode::kNotFound);
}

}  // namespace
}  // namespace migrate
