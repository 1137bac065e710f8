#include "pager/internal/latency_histogram.h"

#include <gtest/gtest.h>

namespace migrate {
namespace {

TEST(LatencyHistogram, FindsQuantiles) {
  LatencyHistogram histogram;
  EXPECT_EQ(histogram.quantile_ns(0.5), 0U);
  for (std::uint64_t i = 1; i <= 1000; ++i) {
    histogram.record(i * 1000);
  }
  EXPECT_EQ(histogram.count(), 1000U);
  EXPECT_EQ(histogram.max_ns(), 1000000U);
  EXPECT_NEAR(static_cast<double>(histogram.quantile_ns(0.5)), 500000, 40000);
  EXPECT_NEAR(static_cast<double>(histogram.quantile_ns(0.99)), 990000, 70000);
  histogram.record(0);
  histogram.record(~std::uint64_t{0});
  EXPECT_EQ(histogram.quantile_ns(0), 0U);
}

}  // namespace
}  // namespace migrate
