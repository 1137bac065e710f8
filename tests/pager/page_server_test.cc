// The page server with a reader that the test holds up.

#include "pager/page_server.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <thread>

#include "tests/pager/socket_link.h"

namespace migrate::test {
namespace {

constexpr std::uint64_t kBase = 0x10000000;
constexpr std::uint64_t kPages = 64;
constexpr int kLimitMs = 10'000;

constexpr std::uint64_t address(std::uint64_t page) {
  return kBase + page * kPageBytes;
}

/// Memory in which each page is full of its number; a read of one page waits for the test.
class HeldReader final : public PageReader {
 public:
  Result<std::uint64_t> read(std::span<const PageRange> ranges,
                             std::span<std::byte> bytes) override {
    if (ranges.size() == 1 && ranges.front().page_count == 1) {
      reads_ = true;
      released_.wait(false);
    }
    std::uint64_t pages = 0;
    for (const PageRange& range : ranges) {
      for (std::uint64_t i = 0; i < range.page_count; ++i, ++pages) {
        const std::uint64_t number = (range.start - kBase) / kPageBytes + i + 1;
        std::ranges::fill(bytes.subspan(pages * kPageBytes, kPageBytes),
                          static_cast<std::byte>(number));
      }
    }
    return pages;
  }

  Result<void> scan(const ServedRegion& region, std::vector<PageRange>& present) override {
    present.push_back(region.range);
    return {};
  }

  bool reads() const { return reads_; }
  void release() {
    released_ = true;
    released_.notify_all();
  }

 private:
  std::atomic<bool> reads_ = false;
  std::atomic<bool> released_ = false;
};

void send_message(PageLink& link, std::span<const std::byte> message) {
  EXPECT_TRUE(link.send(std::span(&message, 1)));
}

/// Ends the loops of a server, whatever has failed, before their threads are joined.
struct Ending {
  HeldReader& reader;
  PageServer& server;
  ~Ending() {
    reader.release();
    server.request_stop();
  }
};

TEST(PageServer, DoesNotPushWhatIsBeingReadForARequest) {
  HeldReader reader;
  PageServerOptions options;
  options.push = false;
  auto server = PageServer::create(options, reader, {{.range = {kBase, kPages}}});
  ASSERT_TRUE(server);
  auto [urgent, our_urgent] = make_link_pair();
  auto [bulk, our_bulk] = make_link_pair();
  const std::jthread serves(
      [&, link = urgent.get()] { EXPECT_TRUE((*server)->serve_urgent(*link)); });
  const std::jthread pushes([&, link = bulk.get()] { EXPECT_TRUE((*server)->push(*link)); });
  const Ending ending{reader, **server};

  const auto presence = our_bulk->receive(0, kLimitMs);
  ASSERT_TRUE(presence);
  EXPECT_EQ(message_type(*presence).value(), MessageType::kPresence);
  PageRequest request;
  request.tag = 1;
  request.address = address(5);
  request.page_count = 1;
  send_message(*our_urgent, message_bytes(request));
  while (!reader.reads()) {
    std::this_thread::yield();
  }
  (*server)->start_push();

  std::uint64_t pushed = 0;
  for (;;) {
    const auto message = our_bulk->receive(0, kLimitMs);
    ASSERT_TRUE(message);
    if (message_type(*message).value() == MessageType::kPushEnd) {
      break;
    }
    PushView view;
    ASSERT_TRUE(parse_push(*message, view));
    for (const PushRun& run : view.runs) {
      EXPECT_FALSE(run.range().contains(address(5)));
      pushed += run.page_count;
    }
  }
  EXPECT_EQ(pushed, kPages - 1);

  reader.release();
  const auto reply = our_urgent->receive(0, kLimitMs);
  ASSERT_TRUE(reply);
  const auto view = parse_reply(*reply);
  ASSERT_TRUE(view);
  EXPECT_EQ(view->header.address, address(5));
}

}  // namespace
}  // namespace migrate::test
