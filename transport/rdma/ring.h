#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>

namespace migrate::rdma {

/// Most messages that are under way in one direction.
inline constexpr std::uint32_t kWindow = 64;
/// The longest message in a ring is this part of it. What is skipped before it, and a part of the
/// same size that the receiver has not given back yet, leave room for it, so that waiting ends.
inline constexpr std::size_t kLongestShare = 4;

/// A message in a ring of bytes lies in one piece: what is left before the end is skipped if it is
/// too small. Sender and receiver compute the same places from the lengths alone. A value type.
class RingCursor {
 public:
  struct Place {
    std::size_t offset = 0;
    std::size_t used = 0;  ///< With what was skipped before it.
  };

  explicit RingCursor(std::size_t ring_bytes) : ring_bytes_(ring_bytes) {}

  /// Where a message of `length` (<= ring_bytes) lies that follows those that were passed.
  Place next(std::size_t length) const {
    const std::size_t left = ring_bytes_ - position_;
    return length <= left ? Place{position_, length} : Place{0, left + length};
  }
  void pass(const Place& place, std::size_t length) { position_ = place.offset + length; }

  std::size_t ring_bytes() const { return ring_bytes_; }

 private:
  std::size_t ring_bytes_;
  std::size_t position_ = 0;
};

/// What a sender knows of the peer's ring and window. Messages end in the order in which they
/// began, each when the device has done with it and the peer has given its place back. A value
/// type.
class SendWindow {
 public:
  explicit SendWindow(std::size_t ring_bytes) : cursor_(ring_bytes) {}

  /// Whether begin() would succeed.
  bool has_room(std::size_t length) const {
    const std::size_t used = length > 0 ? cursor_.next(length).used : 0;
    return begun_ - ended_ < kWindow && used_ + used <= cursor_.ring_bytes();
  }

  /// Begins a message of which `length` bytes go into the ring (0: none). Nothing: no room now.
  std::optional<RingCursor::Place> begin(std::size_t length) {
    if (!has_room(length)) {
      return std::nullopt;
    }
    const RingCursor::Place place = length > 0 ? cursor_.next(length) : RingCursor::Place{};
    if (length > 0) {
      cursor_.pass(place, length);
    }
    used_ += place.used;
    sizes_[begun_++ % kWindow] = place.used;
    return place;
  }

  /// The device has done with the oldest message that it had not done with.
  void completed() {
    ++completed_;
    end();
  }
  /// The peer gave back the places of `count` messages. False: it cannot have had so many.
  bool credited(std::uint32_t count) {
    if (count > begun_ - credited_) {
      return false;
    }
    credited_ += count;
    end();
    return true;
  }
  /// Messages that the device has not done with.
  std::uint64_t incomplete() const { return begun_ - completed_; }

 private:
  void end() {
    while (ended_ < completed_ && ended_ < credited_) {
      used_ -= sizes_[ended_++ % kWindow];
    }
  }

  RingCursor cursor_;
  std::array<std::size_t, kWindow> sizes_{};
  std::size_t used_ = 0;
  std::uint64_t begun_ = 0;
  std::uint64_t completed_ = 0;
  std::uint64_t credited_ = 0;
  std::uint64_t ended_ = 0;
};

}  // namespace migrate::rdma
