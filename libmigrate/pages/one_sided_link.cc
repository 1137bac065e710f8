#include "libmigrate/pages/one_sided_link.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/log.h"
#include "pager/page_protocol.h"

namespace migrate {
namespace {

constexpr std::uint32_t kWindowsType = 16;

struct WindowsHeader {
  std::uint32_t type = kWindowsType;
  std::uint32_t count = 0;
};
static_assert(sizeof(WindowsHeader) == 8);

struct WireWindow {
  std::uint64_t source = 0;
  std::uint64_t page_count = 0;
  std::uint64_t address = 0;
  std::uint32_t key = 0;
  std::uint32_t reserved = 0;
};
static_assert(sizeof(WireWindow) == 32);

template <class T>
T read_struct(std::span<const std::byte> bytes) {
  T value;
  std::memcpy(&value, bytes.data(), sizeof(T));
  return value;
}

/// Writes `value` to the beginning of `bytes`; what is left of them.
template <class T>
std::span<std::byte> put_struct(std::span<std::byte> bytes, const T& value) {
  std::memcpy(bytes.data(), &value, sizeof(T));
  return bytes.subspan(sizeof(T));
}

}  // namespace

std::vector<std::byte> encode_windows(std::span<const ReadableWindow> windows) {
  std::vector<std::byte> message(sizeof(WindowsHeader) + windows.size() * sizeof(WireWindow));
  std::span<std::byte> left = put_struct(
      std::span(message), WindowsHeader{.count = static_cast<std::uint32_t>(windows.size())});
  for (const ReadableWindow& window : windows) {
    left = put_struct(left, WireWindow{.source = window.source.start,
                                       .page_count = window.source.page_count,
                                       .address = window.place.address,
                                       .key = window.place.key});
  }
  return message;
}

Result<std::vector<ReadableWindow>> decode_windows(std::span<const std::byte> message) {
  const auto corrupt = [] {
    return fail(make_error(ErrorCode::kCorrupt, "read which memory the source exposes"));
  };
  if (message.size() < sizeof(WindowsHeader)) {
    return corrupt();
  }
  const auto header = read_struct<WindowsHeader>(message);
  message = message.subspan(sizeof header);
  if (header.type != kWindowsType || header.count > kMaxWindows ||
      message.size() != header.count * sizeof(WireWindow)) {
    return corrupt();
  }
  std::vector<ReadableWindow> windows;
  std::uint64_t end = 0;
  for (; !message.empty(); message = message.subspan(sizeof(WireWindow))) {
    const auto window = read_struct<WireWindow>(message);
    const PageRange source{window.source, window.page_count};
    if (!source.valid() || source.empty() || source.start < end || window.reserved != 0) {
      return corrupt();
    }
    windows.push_back({source, {window.address, window.key}});
    end = source.end();
  }
  return windows;
}

void OfferingLink::offer(std::vector<ReadableWindow> windows) {
  const MutexLock lock(mutex_);
  untold_ = std::move(windows);
  has_untold_ = !untold_.empty();
}

Result<void> OfferingLink::send(std::span<const std::span<const std::byte>> parts) {
  if (has_untold_.exchange(false)) {
    std::vector<ReadableWindow> windows;
    {
      const MutexLock lock(mutex_);
      windows.swap(untold_);
    }
    const std::vector<std::byte> message = encode_windows(windows);
    const std::span<const std::byte> part = message;
    MIGRATE_TRY(ChannelLink::send(std::span(&part, 1)));
  }
  return ChannelLink::send(parts);
}

const ReadableWindow* ReadingLink::window_of(PageRange range) const {
  auto after = std::upper_bound(windows_.begin(), windows_.end(), range.start,
                                [](std::uint64_t address, const ReadableWindow& window) {
                                  return address < window.source.start;
                                });
  if (after == windows_.begin()) {
    return nullptr;
  }
  const ReadableWindow& window = *--after;
  return window.source.contains(range) ? &window : nullptr;
}

Result<void> ReadingLink::send(std::span<const std::span<const std::byte>> parts) {
  const bool request =
      !windows_.empty() && parts.size() == 1 && parts.front().size() == sizeof(PageRequest) &&
      message_type(parts.front()).value_or(MessageType::kDone) == MessageType::kRequest;
  if (!request) {
    return ChannelLink::send(parts);
  }
  const auto asked = read_struct<PageRequest>(parts.front());
  const ReadableWindow* const window = window_of(asked.range());
  const std::size_t length = std::size_t{asked.page_count} * kPageBytes;
  if (window == nullptr || length > OneSidedChannel::kMaxReadBytes) {
    return ChannelLink::send(parts);
  }
  const ReplyHeader reply{
      .tag = asked.tag, .address = asked.address, .page_count = asked.page_count};
  const ExposedPlace place{window->place.address + (asked.address - window->source.start),
                           window->place.key};
  auto read = connection_->read(message_bytes(reply), place, length);
  if (!read && read.error().code != ErrorCode::kPeerLost) {
    if (read.error().code != ErrorCode::kRetry) {  // Not only too many at a time.
      log::warn("shared memory is asked for, not read: {}", read.error().message());
      windows_.clear();
    }
    return ChannelLink::send(parts);
  }
  if (read) {
    pages_read_ += asked.page_count;
  }
  return read;
}

Result<bool> ReadingLink::take_windows(std::span<const std::byte> message) {
  if (message.size() < sizeof(kWindowsType) ||
      read_struct<std::uint32_t>(message) != kWindowsType) {
    return false;
  }
  windows_ = MIGRATE_TRY(decode_windows(message));
  return true;
}

Result<std::optional<std::span<const std::byte>>> ReadingLink::try_receive() {
  for (;;) {
    auto message = ChannelLink::try_receive();
    if (!message || !*message || !MIGRATE_TRY(take_windows(**message))) {
      return message;
    }
  }
}

Result<std::span<const std::byte>> ReadingLink::receive(std::uint32_t spin_us, int timeout_ms) {
  for (;;) {
    auto message = ChannelLink::receive(spin_us, timeout_ms);
    if (!message || !MIGRATE_TRY(take_windows(*message))) {
      return message;
    }
  }
}

std::unique_ptr<PageLink> make_urgent_link(std::unique_ptr<Channel> channel,
                                           std::atomic<std::uint64_t>& pages_read) {
  std::shared_ptr<Channel> shared = std::move(channel);
  if (auto connection = std::dynamic_pointer_cast<OneSidedChannel>(shared)) {
    return std::make_unique<ReadingLink>(std::move(connection), pages_read);
  }
  return std::make_unique<ChannelLink>(std::move(shared));
}

}  // namespace migrate
