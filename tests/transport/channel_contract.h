#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <utility>

#include "tests/transport/channel_factories.h"

namespace migrate::test {

/// The contract of transport/channel.h, run over every kind of channel that a test program
/// instantiates it for.
class ChannelContract : public testing::TestWithParam<ChannelKind> {
 protected:
  void SetUp() override {
    if (const std::string reason = GetParam().why_skipped(); !reason.empty()) {
      GTEST_SKIP() << reason;
    }
    auto [left, right] = GetParam().make();
    left_ = std::move(left);
    right_ = std::move(right);
    ASSERT_TRUE(left_ && right_);
  }

  std::unique_ptr<Channel> left_;
  std::unique_ptr<Channel> right_;
};

/// The name of a kind, for INSTANTIATE_TEST_SUITE_P.
inline std::string kind_name(const testing::TestParamInfo<ChannelKind>& instance) {
  return instance.param.name;
}

}  // namespace migrate::test
