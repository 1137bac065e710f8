#include "transport/preamble.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <thread>

#include "base/file.h"
#include "base/unique_fd.h"

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
  EXPECT_EQ(head, std::string("LMIG\x02\x00\x03\x00", 8));
  EXPECT_EQ(bytes[8], preamble_.session[0]);
  EXPECT_EQ(bytes[23], preamble_.session[15]);
}

TEST_F(PreambleTest, RefusesOtherProtocolsAndVersions) {
  EXPECT_EQ(receive_changed(0, 'G').error().code, ErrorCode::kCorrupt);
  EXPECT_EQ(receive_changed(6, 0).error().code, ErrorCode::kCorrupt);
  EXPECT_EQ(receive_changed(6, 8).error().code, ErrorCode::kCorrupt);
  EXPECT_EQ(receive_changed(7, 1).error().code, ErrorCode::kCorrupt);
  EXPECT_EQ(receive_changed(31, 1).error().code, ErrorCode::kCorrupt);
  const auto other = receive_changed(4, 1);
  ASSERT_FALSE(other);
  EXPECT_EQ(other.error().code, ErrorCode::kUnsupported);
  EXPECT_NE(other.error().message().find("version 1"), std::string::npos);
}

TEST_F(PreambleTest, GivesUpOnSilentAndLostPeers) {
  EXPECT_EQ(receive_preamble(right_.get(), 20).error().code, ErrorCode::kRetry);
  const auto bytes = encode(preamble_);
  ASSERT_TRUE(write_all(left_.get(), std::span(bytes).first(31)));
  EXPECT_EQ(receive_preamble(right_.get(), 20).error().code, ErrorCode::kRetry);
  left_.reset();
  EXPECT_EQ(receive_preamble(right_.get(), 20).error().code, ErrorCode::kPeerLost);
  EXPECT_EQ(send_preamble(right_.get(), preamble_).error().code, ErrorCode::kPeerLost);
}

TEST_F(PreambleTest, WaitsForSlowPeers) {
  std::thread slow([&] {
    for (const std::byte byte : encode(preamble_)) {
      ASSERT_TRUE(write_all(left_.get(), std::span(&byte, 1)));
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  });
  EXPECT_EQ(receive_preamble(right_.get(), 5000).value(), preamble_);
  slow.join();
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
