#include "libmigrate/pages/one_sided_link.h"

#include <gtest/gtest.h>

#include <deque>

#include "pager/page_protocol.h"

namespace migrate {
namespace {

using Bytes = std::vector<std::byte>;

/// A connection that notes what it is asked for.
class NotingConnection final : public OneSidedChannel {
 public:
  struct Read {
    Bytes head;
    ExposedPlace place;
    std::size_t length = 0;
  };

  Result<void> send(std::span<const std::span<const std::byte>> parts) override {
    Bytes& message = sent.emplace_back();
    for (const auto& part : parts) {
      message.insert(message.end(), part.begin(), part.end());
    }
    return {};
  }
  Result<std::optional<std::span<const std::byte>>> try_receive() override {
    if (arriving.empty()) {
      return std::nullopt;
    }
    lent_ = std::move(arriving.front());
    arriving.pop_front();
    return std::span<const std::byte>(lent_);
  }
  Result<std::span<const std::byte>> receive(std::uint32_t, int) override {
    return fail(make_error(ErrorCode::kRetry, "receive"));
  }
  int poll_fd() const override { return -1; }
  std::uint64_t bytes_sent() const override { return 0; }
  std::uint64_t bytes_received() const override { return 0; }
  void shutdown() override {}
  Result<ExposedPlace> expose(Mapping) override { return ExposedPlace(); }
  Result<void> read(std::span<const std::byte> head, const ExposedPlace& place,
                    std::size_t length_bytes) override {
    if (busy) {
      return fail(make_error(ErrorCode::kRetry, "read"));
    }
    reads.push_back({{head.begin(), head.end()}, place, length_bytes});
    return {};
  }

  std::vector<Bytes> sent;
  std::deque<Bytes> arriving;
  std::vector<Read> reads;
  bool busy = false;

 private:
  Bytes lent_;
};

const std::vector<ReadableWindow> kWindows{{{0x10000, 16}, {0x7000000, 5}},
                                           {{0x40000, 1}, {0x9000000, 6}}};

Result<void> ask(PageLink& link, std::uint64_t address, std::uint32_t pages) {
  const PageRequest request{.tag = 7, .address = address, .page_count = pages};
  const std::span<const std::byte> part = message_bytes(request);
  return link.send(std::span(&part, 1));
}

TEST(OneSidedLink, WindowsSurviveTheWire) {
  const auto windows = decode_windows(encode_windows(kWindows));
  ASSERT_TRUE(windows);
  ASSERT_EQ(windows->size(), 2U);
  EXPECT_EQ((*windows)[1].source, kWindows[1].source);
  EXPECT_EQ((*windows)[1].place.address, 0x9000000U);
  EXPECT_EQ((*windows)[1].place.key, 6U);
}

TEST(OneSidedLink, RefusesWhatIsNoListOfWindows) {
  Bytes bytes = encode_windows(kWindows);
  bytes.pop_back();
  EXPECT_FALSE(decode_windows(bytes)) << "cut short";
  EXPECT_FALSE(decode_windows({}));
  const std::vector<ReadableWindow> overlapping{{{0x10000, 16}, {}}, {{0x11000, 1}, {}}};
  EXPECT_FALSE(decode_windows(encode_windows(overlapping)));
  for (const PageRange bad : {PageRange{0x10001, 1}, PageRange{0x10000, 0},
                              PageRange{0x10000, ~std::uint64_t{0}}, PageRange{1ULL << 60U, 1}}) {
    const std::vector<ReadableWindow> windows{{bad, {}}};
    EXPECT_FALSE(decode_windows(encode_windows(windows)));
  }
  const std::vector<ReadableWindow> many(kMaxWindows + 1);
  EXPECT_FALSE(decode_windows(encode_windows(many)));
}

TEST(OneSidedLink, ReadsWhatLiesInAWindow) {
  const auto connection = std::make_shared<NotingConnection>();
  std::atomic<std::uint64_t> pages = 0;
  ReadingLink link(connection, pages);
  ASSERT_TRUE(ask(link, 0x12000, 2));
  EXPECT_EQ(connection->sent.size(), 1U) << "nothing is known to be exposed yet";
  connection->arriving.push_back(encode_windows(kWindows));
  EXPECT_FALSE(link.try_receive().value()) << "the pager does not see it";
  ASSERT_TRUE(ask(link, 0x12000, 2));
  ASSERT_EQ(connection->reads.size(), 1U);
  EXPECT_EQ(connection->reads[0].place.address, 0x7002000U);
  EXPECT_EQ(connection->reads[0].place.key, 5U);
  EXPECT_EQ(connection->reads[0].length, 8192U);
  EXPECT_EQ(pages, 2U);
  // What arrives is the reply that the pager waits for.
  Bytes reply = connection->reads[0].head;
  reply.resize(reply.size() + 8192);
  const auto view = parse_reply(reply);
  ASSERT_TRUE(view) << view.error().message();
  EXPECT_EQ(view->header.tag, 7U);
  EXPECT_EQ(view->header.range(), (PageRange{0x12000, 2}));
}

TEST(OneSidedLink, AsksForTheRest) {
  const auto connection = std::make_shared<NotingConnection>();
  std::atomic<std::uint64_t> pages = 0;
  ReadingLink link(connection, pages);
  connection->arriving.push_back(encode_windows(kWindows));
  ASSERT_TRUE(link.try_receive());
  for (const PageRange range : {PageRange{0xf000, 1}, PageRange{0xf000, 2}, PageRange{0x1f000, 2},
                                PageRange{0x20000, 1}, PageRange{0x40000, 2}}) {
    ASSERT_TRUE(ask(link, range.start, static_cast<std::uint32_t>(range.page_count)));
  }
  connection->busy = true;
  ASSERT_TRUE(ask(link, 0x10000, 1));
  EXPECT_TRUE(connection->reads.empty());
  EXPECT_EQ(connection->sent.size(), 6U);
  EXPECT_EQ(pages, 0U);
}

TEST(OneSidedLink, TellsOfWindowsOnceBeforeAReply) {
  const auto connection = std::make_shared<NotingConnection>();
  OfferingLink link(connection);
  const Bytes reply(100);
  const std::span<const std::byte> part = reply;
  ASSERT_TRUE(link.send(std::span(&part, 1)));
  link.offer(kWindows);
  ASSERT_TRUE(link.send(std::span(&part, 1)));
  ASSERT_TRUE(link.send(std::span(&part, 1)));
  ASSERT_EQ(connection->sent.size(), 4U);
  EXPECT_EQ(connection->sent[1], encode_windows(kWindows));
}

}  // namespace
}  // namespace migrate
