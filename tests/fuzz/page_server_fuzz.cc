// A page server whose peer says anything: it never sends a page that it does not serve, never
// frees one that was not confirmed, and ends.
#include <algorithm>
#include <cstdlib>
#include <deque>
#include <set>

#include "pager/page_server.h"
#include "tests/fuzz/message_list.h"

namespace migrate {
namespace {

constexpr std::uint64_t kBase = 0x10000;
constexpr std::uint64_t kPages = 64;
constexpr PageRange kServed[] = {{kBase, kPages}, {kBase + 100 * kPageBytes, kPages}};

void expect(bool condition) {
  if (!condition) {
    std::abort();
  }
}

bool is_served(const PageRange& range) {
  return std::ranges::any_of(kServed,
                             [&](const PageRange& served) { return served.contains(range); });
}

/// Memory whose every fifth page is zero and every seventh cannot be read.
class Memory final : public PageReader {
 public:
  Result<std::uint64_t> read(std::span<const PageRange> ranges,
                             std::span<std::byte> bytes) override {
    std::uint64_t count = 0;
    for (const PageRange& range : ranges) {
      expect(is_served(range));
      for (std::uint64_t i = 0; i < range.page_count; ++i, ++count) {
        const std::uint64_t page = (range.start - kBase) / kPageBytes + i;
        if (page % 7 == 6) {
          return count;
        }
        const auto value = page % 5 == 4 ? std::byte{0} : std::byte{0x55};
        std::ranges::fill(bytes.subspan(count * kPageBytes, kPageBytes), value);
      }
    }
    return count;
  }
  Result<void> scan(const ServedRegion& region, std::vector<PageRange>& present) override {
    present.push_back({region.range.start, region.range.page_count / 2});
    return {};
  }
};

/// Gives the input's messages, then breaks.
class Peer final : public PageLink {
 public:
  explicit Peer(std::span<const std::span<const std::byte>> messages)
      : messages_(messages.begin(), messages.end()) {}

  Result<void> send(std::span<const std::span<const std::byte>> parts) override {
    std::vector<std::byte> message;
    for (const auto& part : parts) {
      message.insert(message.end(), part.begin(), part.end());
    }
    if (const auto reply = parse_reply(message)) {
      expect(reply->header.kind == PageKind::kError || is_served(reply->header.range()));
    }
    return {};
  }
  Result<std::optional<std::span<const std::byte>>> try_receive() override {
    if (messages_.empty() || shut_) {
      return fail(make_error(ErrorCode::kPeerLost, "receive"));
    }
    const auto message = messages_.front();
    messages_.pop_front();
    return message;
  }
  Result<std::span<const std::byte>> receive(std::uint32_t, int) override {
    return *MIGRATE_TRY(try_receive());
  }
  int poll_fd() const override { return -1; }
  Result<bool> arm() override { return true; }
  void shutdown() override { shut_ = true; }

 private:
  std::deque<std::span<const std::byte>> messages_;
  bool shut_ = false;
};

void fuzz_server(std::span<const std::byte> input) {
  if (input.empty()) {
    return;
  }
  const auto flags = std::to_integer<unsigned>(input.front());
  const auto messages = fuzz::messages_of(input.subspan(1));
  const auto half = std::span(messages).first(messages.size() / 2);
  Memory memory;
  auto server = PageServer::create(
      {.push = (flags & 1U) != 0, .spin_us = 0}, memory,
      {{kServed[0], RegionKind::kAnonymous, 0}, {kServed[1], RegionKind::kAnonymous, 0}});
  expect(server.has_value());
  Peer bulk(half);
  static_cast<void>((*server)->push(bulk));
  for (const PageRange& range : (*server)->take_confirmed()) {
    expect(is_served(range));
  }
  Peer urgent(std::span(messages).subspan(half.size()));
  static_cast<void>((*server)->serve_urgent(urgent));
  Peer again(half);
  static_cast<void>((*server)->push(again));
}

}  // namespace
}  // namespace migrate

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  migrate::fuzz_server(std::as_bytes(std::span(data, size)));
  return 0;
}
