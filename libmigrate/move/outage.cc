#include "libmigrate/move/outage.h"

#include <algorithm>
#include <utility>

namespace migrate {
namespace {

// An attempt may block for seconds: before the first one, the caller shows that it waits.
constexpr std::int64_t kFirstPauseUs = 50'000;
constexpr std::int64_t kShortestPauseUs = 100'000;
constexpr std::int64_t kLongestPauseUs = 5'000'000;

}  // namespace

void Outage::begin(std::string reason, std::int64_t now_us) {
  if (reason_.empty()) {
    since_us_ = now_us;
    next_us_ = now_us + kFirstPauseUs;
    pause_us_ = kShortestPauseUs;
  }
  reason_ = std::move(reason);
}

void Outage::note_attempt(std::int64_t now_us) {
  next_us_ = now_us + pause_us_;
  pause_us_ = std::min(2 * std::max(pause_us_, kShortestPauseUs), kLongestPauseUs);
}

}  // namespace migrate
