#include "pager/page_protocol.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>

namespace migrate {
namespace {

using Bytes = std::vector<std::byte>;

template <class T>
void append(Bytes& bytes, const T& value) {
  const auto part = message_bytes(value);
  bytes.insert(bytes.end(), part.begin(), part.end());
}

Bytes push_message() {
  Bytes bytes;
  bytes.reserve(sizeof(PushHeader) + 3 * sizeof(PushRun) + 3 * kPageBytes);
  append(bytes, PushHeader{MessageType::kPush, 3, 7});
  append(bytes, PushRun{0x10000, 2, PageKind::kData});
  append(bytes, PushRun{0x20000, 256, PageKind::kZero});
  append(bytes, PushRun{0x200000, 1, PageKind::kData});
  bytes.resize(bytes.size() + 3 * kPageBytes, std::byte{42});
  return bytes;
}

Bytes presence_message() {
  Bytes bytes;
  bytes.reserve(sizeof(PresenceHeader) + 2 * sizeof(PageRange));
  append(bytes, PresenceHeader{MessageType::kPresence, 1, 0x1000, 0x100000, 2, 0});
  append(bytes, PageRange{0x1000, 4});
  append(bytes, PageRange{0x10000, 1});
  return bytes;
}

Bytes reply_message() {
  Bytes bytes;
  bytes.reserve(sizeof(ReplyHeader) + kPageBytes);
  append(bytes, ReplyHeader{MessageType::kReply, 5, 0x1000, 1, PageKind::kData});
  bytes.resize(bytes.size() + kPageBytes);
  return bytes;
}

Bytes request_message() {
  Bytes bytes;
  bytes.reserve(sizeof(PageRequest));
  append(bytes, PageRequest{MessageType::kRequest, 5, 0x1000, 16, 0});
  return bytes;
}

TEST(PageProtocol, ReadsWhatItShould) {
  PushView push;
  const Bytes push_bytes = push_message();
  ASSERT_TRUE(parse_push(push_bytes, push));
  EXPECT_EQ(push.sequence, 7U);
  EXPECT_EQ(push.runs.size(), 3U);
  EXPECT_EQ(push.content.size(), 3 * kPageBytes);
  PresenceView presence;
  const Bytes presence_bytes = presence_message();
  ASSERT_TRUE(parse_presence(presence_bytes, presence));
  EXPECT_TRUE(presence.last);
  EXPECT_EQ(presence.ranges.size(), 2U);
  const Bytes reply_bytes = reply_message();
  ASSERT_TRUE(parse_reply(reply_bytes));
  const Bytes request_bytes = request_message();
  ASSERT_TRUE(parse_request(request_bytes));
  EXPECT_EQ(*message_type(request_bytes), MessageType::kRequest);
}

TEST(PageProtocol, RejectsEveryTruncationAndExtension) {
  PushView push;
  PresenceView presence;
  const auto rejects = [&](const Bytes& whole, auto parse) {
    for (std::size_t length = 0; length < whole.size(); length += length < 128 ? 1 : 977) {
      const Bytes part(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(length));
      EXPECT_FALSE(parse(part)) << length;
    }
    Bytes longer = whole;
    longer.push_back(std::byte{0});
    EXPECT_FALSE(parse(longer));
  };
  rejects(push_message(), [&](const Bytes& b) { return parse_push(b, push).has_value(); });
  rejects(presence_message(),
          [&](const Bytes& b) { return parse_presence(b, presence).has_value(); });
  rejects(reply_message(), [&](const Bytes& b) { return parse_reply(b).has_value(); });
  rejects(request_message(), [&](const Bytes& b) { return parse_request(b).has_value(); });
}

TEST(PageProtocol, RejectsNonsense) {
  Bytes bytes;
  bytes.reserve(sizeof(PageRequest));
  append(bytes, PageRequest{MessageType::kRequest, 5, 0x1001, 1, 0});
  EXPECT_FALSE(parse_request(bytes));
  bytes.clear();
  append(bytes, PageRequest{MessageType::kRequest, 5, ~std::uint64_t{0xFFF}, 2, 0});
  EXPECT_FALSE(parse_request(bytes));
  bytes.clear();
  append(bytes, PageRequest{MessageType::kRequest, 5, 0x1000, kMaxRequestPages + 1, 0});
  EXPECT_FALSE(parse_request(bytes));
  PresenceView presence;
  bytes.clear();  // overlapping ranges
  append(bytes, PresenceHeader{MessageType::kPresence, 1, 0x1000, 0x100000, 2, 0});
  append(bytes, PageRange{0x1000, 4});
  append(bytes, PageRange{0x2000, 1});
  EXPECT_FALSE(parse_presence(bytes, presence));
  bytes.clear();  // a range that wraps
  append(bytes, PresenceHeader{MessageType::kPresence, 1, 0x1000, 0x100000, 1, 0});
  append(bytes, PageRange{0x1000, ~std::uint64_t{0} / kPageBytes});
  EXPECT_FALSE(parse_presence(bytes, presence));
  bytes.clear();
  append(bytes, PresenceHeader{MessageType::kPresence, 1, 0x1000, 0x100000, 0xFFFFFFFF, 0});
  EXPECT_FALSE(parse_presence(bytes, presence));
  bytes.clear();
  append(bytes, PageControl{MessageType::kRequest, 0, 0});
  bytes.resize(16);
  EXPECT_FALSE(parse_control(bytes));
}

TEST(PageProtocol, SurvivesNoise) {
  std::mt19937 random(1);
  PushView push;
  PresenceView presence;
  const std::vector<Bytes> seeds{push_message(), presence_message(), reply_message(),
                                 request_message()};
  for (int i = 0; i < 20000; ++i) {
    Bytes bytes = seeds[random() % seeds.size()];
    bytes.resize(std::min<std::size_t>(bytes.size(), 200));
    for (unsigned flips = random() % 4; flips > 0; --flips) {
      bytes[random() % bytes.size()] = static_cast<std::byte>(random());
    }
    static_cast<void>(message_type(bytes));
    static_cast<void>(parse_request(bytes));
    static_cast<void>(parse_reply(bytes));
    static_cast<void>(parse_control(bytes));
    if (parse_push(bytes, push)) {
      std::uint64_t data_pages = 0;
      for (const PushRun& run : push.runs) {
        ASSERT_TRUE(run.range().valid());
        data_pages += run.kind == PageKind::kData ? run.page_count : 0;
      }
      ASSERT_EQ(push.content.size(), data_pages * kPageBytes);
    }
    if (parse_presence(bytes, presence)) {
      for (const PageRange& range : presence.ranges) {
        ASSERT_TRUE(presence.covered.contains(range));
      }
    }
  }
}

}  // namespace
}  // namespace migrate
