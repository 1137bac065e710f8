#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace migrate {

/// How many bytes of one stream and direction may be under way without an acknowledgement.
inline constexpr std::uint64_t kRelayWindowBytes = 64U << 10U;
/// Largest content of one RelayData.
inline constexpr std::uint64_t kRelayChunkBytes = 32U << 10U;
/// An acknowledgement is due after this many bytes (or when nothing is left).
inline constexpr std::uint64_t kRelayAckBytes = 8U << 10U;
/// Most streams of one process, and most signals kept for it.
inline constexpr int kMaxRelayStreams = 4096;
inline constexpr std::size_t kMaxRelaySignals = 65536;
inline constexpr std::size_t kSiginfoBytes = 128;

/// A run of bytes of one stream, addressed by their offset in the stream. Owned by one thread.
class StreamBuffer {
 public:
  explicit StreamBuffer(std::uint64_t first = 0) : first_(first) {}

  std::uint64_t first() const { return first_; }
  std::uint64_t end() const { return first_ + size(); }
  std::uint64_t size() const { return data_.size() - head_; }
  bool empty() const { return size() == 0; }

  void append(std::string_view bytes) { data_.append(bytes); }

  /// Forgets the bytes before `offset`, which must lie in [first, end].
  void drop_to(std::uint64_t offset) {
    head_ += offset - first_;
    first_ = offset;
    if (head_ == data_.size() || head_ > kRelayWindowBytes) {
      data_.erase(0, head_);
      head_ = 0;
    }
  }

  /// At most `max_bytes` from `offset` on; borrowed until the next change.
  std::string_view view(std::uint64_t offset, std::uint64_t max_bytes) const {
    return std::string_view(data_).substr(head_ + (offset - first_), max_bytes);
  }

 private:
  std::uint64_t first_;
  std::string data_;
  std::size_t head_ = 0;
};

}  // namespace migrate
