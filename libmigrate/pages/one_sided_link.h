#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/mutex.h"
#include "libmigrate/pages/channel_link.h"
#include "pager/page_range.h"
#include "transport/page_transport.h"

// Pages that the destination reads by itself, without the source's processor. Over the urgent link
// the source tells, before one of its replies, which of its memory is exposed:
//   windows := type:u32=16 count:u32 (source:u64 page_count:u64 address:u64 key:u32 0:u32){count}
// Requests for pages that lie in a window are then reads of it; the rest goes on as it was. Pager
// and page server know nothing of it (types of messages in pager/page_protocol.h are smaller).

namespace migrate {

/// Pages of the source process, and where the destination's device finds them.
struct ReadableWindow {
  PageRange source;
  ExposedPlace place;
};

inline constexpr std::size_t kMaxWindows = 64;

/// The source's end of an urgent link. Threads: as PageLink; offer() by any.
class OfferingLink final : public ChannelLink {
 public:
  explicit OfferingLink(std::shared_ptr<Channel> channel) : ChannelLink(std::move(channel)) {}

  /// Tells the destination of `windows` (at most kMaxWindows) before the next reply.
  void offer(std::vector<ReadableWindow> windows);

  Result<void> send(std::span<const std::span<const std::byte>> parts) override;

 private:
  Mutex mutex_;
  std::vector<ReadableWindow> untold_ MIGRATE_GUARDED_BY(mutex_);
  std::atomic<bool> has_untold_ = false;
};

/// The destination's end. Owned by the pager's fault thread, which sends and receives.
class ReadingLink final : public ChannelLink {
 public:
  /// Counts pages that were asked for by reading into `pages_read`, which outlives this.
  ReadingLink(std::shared_ptr<OneSidedChannel> connection, std::atomic<std::uint64_t>& pages_read)
      : ChannelLink(connection), connection_(std::move(connection)), pages_read_(pages_read) {}

  Result<void> send(std::span<const std::span<const std::byte>> parts) override;
  Result<std::optional<std::span<const std::byte>>> try_receive() override;
  Result<std::span<const std::byte>> receive(std::uint32_t spin_us, int timeout_ms) override;

 private:
  /// True: the message told of windows, and is no business of the pager.
  Result<bool> take_windows(std::span<const std::byte> message);
  const ReadableWindow* window_of(PageRange range) const;

  const std::shared_ptr<OneSidedChannel> connection_;
  std::atomic<std::uint64_t>& pages_read_;
  std::vector<ReadableWindow> windows_;  // ascending
};

/// The destination's urgent link: reading where the channel can.
std::unique_ptr<PageLink> make_urgent_link(std::unique_ptr<Channel> channel,
                                           std::atomic<std::uint64_t>& pages_read);

/// Message of the above; decode gives kCorrupt for what is none, and nothing is trusted before its
/// length is checked. For the tests.
std::vector<std::byte> encode_windows(std::span<const ReadableWindow> windows);
Result<std::vector<ReadableWindow>> decode_windows(std::span<const std::byte> message);

}  // namespace migrate
