#include "pager/internal/push_order.h"

#include <algorithm>

namespace migrate {
namespace {

constexpr std::uint64_t kNearBytes = std::uint64_t{2} << 20U;  // of the same walk
constexpr std::uint32_t kFirstBatches = 1;  // after a request that continues nothing
constexpr std::uint32_t kMostBatches = 16;

}  // namespace

void PushOrder::note_request(PageRange range) {
  for (Trail& trail : trails_) {
    const bool near = trail.high != 0 && range.start < trail.high + kNearBytes &&
                      range.end() + kNearBytes > trail.low;
    if (!near) {
      continue;
    }
    if (range.start >= trail.high) {
      trail.down = false;
      trail.high = range.end();
    } else if (range.end() <= trail.low) {
      trail.down = true;
      trail.low = range.start;
    } else {
      return;  // Overtaken: it was on its way when it was asked for.
    }
    trail.batches = kMostBatches;
    return;
  }
  newest_ = (newest_ + 1) % kTrails;
  trails_[newest_] = {range.start, range.end(), false, kFirstBatches};
  turn_ = newest_;
}

std::optional<std::uint64_t> PushOrder::next(std::uint64_t bytes) {
  for (std::size_t i = 0; i < kTrails; ++i) {
    Trail& trail = trails_[(turn_ + i) % kTrails];
    if (trail.batches == 0) {
      continue;
    }
    turn_ = (turn_ + i + 1) % kTrails;
    --trail.batches;
    if (trail.down) {
      trail.low -= std::min(trail.low, bytes);
      return trail.low;
    }
    trail.high += bytes;
    return trail.high - bytes;
  }
  return std::nullopt;
}

}  // namespace migrate
