#pragma once

#include <array>
#include <cstdint>

namespace migrate {

/// Counts durations in buckets of about 6 % width; constant memory. Owned by its user's lock.
class LatencyHistogram {
 public:
  void record(std::uint64_t duration_ns);
  std::uint64_t count() const { return count_; }
  std::uint64_t max_ns() const { return max_ns_; }
  /// The duration that `fraction` (0 to 1) of those recorded do not exceed; 0 when none was.
  std::uint64_t quantile_ns(double fraction) const;

 private:
  static constexpr std::size_t kBucketCount = 61 * 16;

  std::array<std::uint64_t, kBucketCount> buckets_{};
  std::uint64_t count_ = 0;
  std::uint64_t max_ns_ = 0;
};

}  // namespace migrate
