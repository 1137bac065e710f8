#include "transport/preamble.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/file.h"
#include "base/unique_fd.h"
#include "tests/transport/preamble_reader.h"

namespace migrate {
namespace {

class PreambleTest : public testing::Test {
 protected:
  void SetUp() override {
    std::array<int, 2> ends{};
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
    left_ = UniqueFd(ends[0]);
    right_ = UniqueFd(ends[1]);
  }

  Result<Preamble> receive_changed(std::size_t offset, unsigned value) {
    auto bytes = encode(preamble_);
    bytes[offset] = static_cast<std::byte>(value);
    EXPECT_TRUE(write_all(left_.get(), bytes));
    return receive_preamble(right_.get(), 1000);
  }

  UniqueFd left_;
  UniqueFd right_;
  Preamble preamble_{.purpose = Purpose::kBulk, .session = random_session_id().value()};
};

TEST_F(PreambleTest, ReadsExactlyItsOwnBytes) {
  ASSERT_TRUE(send_preamble(left_.get(), preamble_));
  const std::string after = "after";
  ASSERT_TRUE(write_all(left_.get(), std::as_bytes(std::span(after))));
  const auto received = receive_preamble(right_.get(), 1000);
  ASSERT_TRUE(received) << received.error().message();
  EXPECT_EQ(*received, preamble_);
  std::array<char, 16> rest{};
  EXPECT_EQ(::read(right_.get(), rest.data(), rest.size()), 5);
  EXPECT_STREQ(rest.data(), "after");
}

TEST_F(PreambleTest, HasTheDocumentedLayout) {
  const auto bytes = encode(preamble_);
  const std::string head(reinterpret_cast<const char*>(bytes.data()), 8);
  EXPECT_EQ(head, std::string(
                      {'L', 'M', 'I', 'G', kProtocolVersion & 0xff, kProtocolVersion >> 8, 3, 0}));
  EXPECT_EQ(bytes[8], preamble_.session[0]);
  EXPECT_EQ(bytes[23], preamble_.session[15]);
}

TEST_F(PreambleTest, RefusesOtherProtocolsAndVersions) {
  EXPECT_EQ(receive_changed(0, 'G').error().code, ErrorCode::kCorrupt);
  EXPECT_EQ(receive_changed(6, 0).error().code, ErrorCode::kCorrupt);
  EXPECT_EQ(receive_changed(6, 9).error().code, ErrorCode::kCorrupt);
  EXPECT_EQ(receive_changed(7, 1).error().code, ErrorCode::kCorrupt);
  EXPECT_EQ(receive_changed(31, 1).error().code, ErrorCode::kCorrupt);
  const auto other = receive_changed(4, 1);
  ASSERT_FALSE(other);
  EXPECT_EQ(other.error().code, ErrorCode::kUnsupported);
  EXPECT_NE(other.error().message().find("version 1"), std::string::npos);
}

TEST_F(PreambleTest, IsNotSentToALostPeer) {
  left_.reset();
  EXPECT_EQ(send_preamble(right_.get(), preamble_).error().code, ErrorCode::kPeerLost);
}

TEST_F(PreambleTest, RefusalsTellWhy) {
  refuse_for_now(right_.get());
  std::array<std::byte, kPreambleBytes> answer{};
  ASSERT_EQ(::recv(left_.get(), answer.data(), answer.size(), MSG_WAITALL),
            static_cast<ssize_t>(answer.size()));
  EXPECT_EQ(refusal_in(answer)->code, ErrorCode::kBusy);
  answer[4] = std::byte{kProtocolVersion + 1};
  EXPECT_EQ(refusal_in(answer)->code, ErrorCode::kUnsupported);
  EXPECT_FALSE(refusal_in(encode(preamble_)));
  EXPECT_FALSE(refusal_in(std::span(answer).first(5)));
}

TEST(SessionId, HasAHexadecimalForm) {
  SessionId id{};
  id[0] = std::byte{0xab};
  id[15] = std::byte{0x01};
  const std::string text = "ab000000000000000000000000000001";
  EXPECT_EQ(to_hex(id), text);
  EXPECT_EQ(session_id_from_hex(text).value(), id);
  EXPECT_EQ(session_id_from_hex("AB000000000000000000000000000001").value(), id);
  EXPECT_FALSE(session_id_from_hex("ab"));
  EXPECT_FALSE(session_id_from_hex("xb000000000000000000000000000001"));
  EXPECT_NE(random_session_id().value(), random_session_id().value());
}

}  // namespace
}  // namespace migrate
