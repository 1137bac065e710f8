#include "base/cheaper_way.h"

#include <algorithm>

namespace migrate {

void CheaperWay::note(std::chrono::nanoseconds took) {
  times_[time_count_++] = std::max(took, std::chrono::nanoseconds(1));
  if (time_count_ == kTimes) {
    time_count_ = 0;
    end_trial();
  }
}

void CheaperWay::end_trial() {
  std::nth_element(times_.begin(), times_.begin() + kTimes / 2, times_.end());
  const std::chrono::nanoseconds median = times_[kTimes / 2];
  // Of the best, what it was before counts half: the times of one trial have something in common.
  cost_[way_] = way_ == best_ && cost_[way_].count() != 0 ? (cost_[way_] + median) / 2 : median;
  // A change must be worth it: a tenth.
  const std::size_t before = best_;
  for (std::size_t other = 0; other < count_; ++other) {
    if (cost_[other].count() != 0 && cost_[other] * 10 < cost_[best_] * 9) {
      best_ = other;
    }
  }
  for (std::size_t other = 0; other < count_; ++other) {
    if (cost_[other].count() == 0) {
      way_ = other;
      return;
    }
  }
  if (best_ != before) {
    pause_ = kFirstPause;
  }
  if (left_ > 0) {
    --left_;
    way_ = best_;
    return;
  }
  next_ = (next_ + 1) % count_;
  left_ = next_ == best_ ? 0 : pause_;
  pause_ = next_ == best_ ? pause_ : std::min(2 * pause_, kLongestPause);
  way_ = next_;
}

}  // namespace migrate
