#include "transport/rdma/greeting.h"

#include <gtest/gtest.h>

#include <vector>

namespace migrate::rdma {
namespace {

Request some_request() {
  Request request;
  request.greeting.purpose = Purpose::kBulk;
  request.greeting.session.fill(std::byte{0x11});
  request.greeting.token.fill(std::byte{0x22});
  request.landing = {0x1122334455667788, 0x99aabbcc, 1U << 20U};
  return request;
}

TEST(RdmaGreeting, RequestIsReadBackAsWritten) {
  const Request request = some_request();
  const auto bytes = encode_request(request);
  const auto read = decode_request(bytes);
  ASSERT_TRUE(read) << read.error().message();
  EXPECT_EQ(read->greeting.purpose, Purpose::kBulk);
  EXPECT_EQ(read->greeting.session, request.greeting.session);
  EXPECT_EQ(read->greeting.token, request.greeting.token);
  EXPECT_EQ(read->landing.address, request.landing.address);
  EXPECT_EQ(read->landing.key, request.landing.key);
  EXPECT_EQ(read->landing.length_bytes, request.landing.length_bytes);
  EXPECT_EQ(std::to_integer<int>(bytes[0]), 'L');
  EXPECT_EQ(std::to_integer<int>(bytes[40]), 0x88) << "little endian, after 40 bytes";
}

TEST(RdmaGreeting, ReplyMayBePadded) {
  const auto bytes = encode_reply(some_request().landing);
  std::vector<std::byte> padded(bytes.begin(), bytes.end());
  padded.resize(196);
  const auto read = decode_reply(padded);
  ASSERT_TRUE(read) << read.error().message();
  EXPECT_EQ(read->key, 0x99aabbccU);
}

TEST(RdmaGreeting, BadRequestsAreRefused) {
  const auto good = encode_request(some_request());
  EXPECT_EQ(decode_request({}).error().code, ErrorCode::kCorrupt);
  EXPECT_EQ(decode_request(std::span(good).first(55)).error().code, ErrorCode::kCorrupt);
  auto bytes = good;
  bytes[0] = std::byte{'X'};
  EXPECT_EQ(decode_request(bytes).error().code, ErrorCode::kCorrupt);
  bytes = good;
  bytes[7] = std::byte{1};
  EXPECT_EQ(decode_request(bytes).error().code, ErrorCode::kCorrupt);
  bytes = good;
  bytes[5] = std::byte{7};
  EXPECT_EQ(decode_request(bytes).error().code, ErrorCode::kUnsupported);
}

TEST(RdmaGreeting, RejectionsSayWhy) {
  const auto text = [](RejectReason reason) {
    return rejection(encode_reject(reason), "rdma://h:1").message();
  };
  EXPECT_NE(text(RejectReason::kSession).find("token"), std::string::npos);
  EXPECT_NE(text(RejectReason::kVersion).find("version"), std::string::npos);
  EXPECT_NE(text(RejectReason::kResources).find("RLIMIT_MEMLOCK"), std::string::npos);
  EXPECT_NE(text(RejectReason::kPurpose).find("purpose"), std::string::npos);
  EXPECT_EQ(rejection({}, "rdma://h:1").code, ErrorCode::kRefused);
  EXPECT_NE(rejection({}, "rdma://h:1").message().find("rejected"), std::string::npos);
}

}  // namespace
}  // namespace migrate::rdma
