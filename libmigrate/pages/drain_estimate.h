#pragma once

#include <cstdint>
#include <optional>

namespace migrate {

/// When nothing will be owed any more, from how fast less was owed in the last seconds.
/// Owned by one thread.
class DrainEstimate {
 public:
  /// At `now_us` (any clock) so many pages are owed.
  void note(std::int64_t now_us, std::uint64_t owed_pages) {
    constexpr std::int64_t kStepUs = 100'000;
    constexpr double kWeightOfNew = 0.2;  // so that about the last half second counts
    progress_us_ = owed_pages < seen_owed_ ? now_us : progress_us_;
    seen_owed_ = owed_pages;
    if (last_us_ != 0 && now_us - last_us_ < kStepUs) {
      return;
    }
    if (last_us_ != 0) {
      const double gone =
          last_owed_ > owed_pages ? static_cast<double>(last_owed_ - owed_pages) : 0;
      const double rate = gone / static_cast<double>(now_us - last_us_);
      pages_per_us_ =
          pages_per_us_ == 0 ? rate : pages_per_us_ + kWeightOfNew * (rate - pages_per_us_);
    }
    last_us_ = now_us;
    last_owed_ = owed_pages;
  }

  /// Microseconds from `now_us` (of the same clock) until nothing is owed; nothing while that
  /// cannot be said: too little was seen, or nothing arrives. What was noted tells that only for a
  /// while: when a connection breaks, nothing is noted any more.
  std::optional<std::int64_t> remaining_us(std::int64_t now_us) const {
    constexpr double kSlowest = 1e-6;  // a page a second
    constexpr std::int64_t kStaleUs = 2'000'000;
    if (last_owed_ == 0 || pages_per_us_ < kSlowest || now_us - progress_us_ > kStaleUs) {
      return std::nullopt;
    }
    return static_cast<std::int64_t>(static_cast<double>(last_owed_) / pages_per_us_);
  }

 private:
  std::int64_t last_us_ = 0;
  std::int64_t progress_us_ = 0;  // when less was owed than just before
  std::uint64_t last_owed_ = 0;
  std::uint64_t seen_owed_ = 0;
  double pages_per_us_ = 0;
};

}  // namespace migrate
