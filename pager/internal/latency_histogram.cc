#include "pager/internal/latency_histogram.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace migrate {
namespace {

// Below 16 one bucket per value, then 16 buckets for each power of two.
std::size_t bucket_of(std::uint64_t value) {
  if (value < 16) {
    return value;
  }
  const auto exponent = static_cast<unsigned>(std::bit_width(value)) - 1;
  return (exponent - 3) * std::size_t{16} + ((value >> (exponent - 4)) & 15U);
}

std::uint64_t bucket_middle(std::size_t bucket) {
  if (bucket < 16) {
    return bucket;
  }
  const std::size_t shift = bucket / 16 - 1;
  return ((16 + bucket % 16) << shift) + ((std::uint64_t{1} << shift) >> 1U);
}

}  // namespace

void LatencyHistogram::record(std::uint64_t duration_ns) {
  ++buckets_[bucket_of(duration_ns)];
  ++count_;
  max_ns_ = std::max(max_ns_, duration_ns);
}

std::uint64_t LatencyHistogram::quantile_ns(double fraction) const {
  const auto rank = static_cast<std::uint64_t>(std::ceil(fraction * static_cast<double>(count_)));
  std::uint64_t seen = 0;
  for (std::size_t bucket = 0; bucket < kBucketCount; ++bucket) {
    seen += buckets_[bucket];
    if (seen >= rank && seen > 0) {
      return std::min(bucket_middle(bucket), max_ns_);
    }
  }
  return max_ns_;
}

}  // namespace migrate
