// Reading memory of the peer, without its doing anything.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <set>
#include <thread>

#include "tests/transport/rdma/device.h"
#include "tests/transport/text_bytes.h"

namespace migrate::test {
namespace {

constexpr std::size_t kExposed = std::size_t{1} << 20U;

std::byte content_at(std::size_t offset) {
  return static_cast<std::byte>(offset * 7 + offset / 4096);
}

std::string head_of(std::size_t number) {
  return "head " + std::to_string(number);
}

/// A pair whose right side may read memory of the left.
class RdmaRead : public testing::Test {
 protected:
  void SetUp() override { connect(); }

  void connect() {
    Meeting meeting;
    std::tie(left_, right_) = connect_pair(meeting, Purpose::kUrgent);
    ASSERT_TRUE(left_ && right_);
  }

  ExposedPlace expose() {
    Mapping memory = std::move(Mapping::create(kExposed)).value();
    for (std::size_t i = 0; i < kExposed; ++i) {
      memory.bytes()[i] = content_at(i);
    }
    auto place = left_->expose(std::move(memory));
    EXPECT_TRUE(place) << place.error().message();
    return place.value_or(ExposedPlace());
  }

  Result<void> read(const ExposedPlace& place, std::size_t number, std::size_t offset,
                    std::size_t length) {
    return right_->read(bytes_of(head_of(number)), {place.address + offset, place.key}, length);
  }

  /// The next message, which must be a read of `length` bytes at the offset that `offsets` gives
  /// for its number; the number.
  std::size_t expect_read(std::span<const std::size_t> offsets, std::size_t length) {
    const auto message = right_->receive(0, kConnectMs);
    EXPECT_TRUE(message) << message.error().message();
    if (!message || message->size() != head_of(0).size() + length) {
      ADD_FAILURE() << "no such message";
      return 0;
    }
    const auto head = message->first(head_of(0).size());
    const auto number = std::to_integer<std::size_t>(head.back()) - '0';
    const auto content = message->subspan(head.size());
    for (std::size_t i = 0; i < length; ++i) {
      if (content[i] != content_at(offsets[number] + i)) {
        ADD_FAILURE() << "byte " << i << " of read " << number;
        break;
      }
    }
    return number;
  }

  std::unique_ptr<OneSidedChannel> left_;
  std::unique_ptr<OneSidedChannel> right_;
};

TEST_F(RdmaRead, BringsExposedMemoryBehindItsHead) {
  const ExposedPlace place = expose();
  const std::array<std::size_t, 3> offsets{0, 8192, kExposed - 4096};
  for (std::size_t i = 0; i < offsets.size(); ++i) {
    ASSERT_TRUE(read(place, i, offsets[i], 4096));
  }
  std::set<std::size_t> seen;
  while (seen.size() < offsets.size()) {
    ASSERT_TRUE(seen.insert(expect_read(offsets, 4096)).second);
  }
  // Messages go on beside it.
  ASSERT_TRUE(read(place, 0, 0, OneSidedChannel::kMaxReadBytes));
  expect_read(offsets, OneSidedChannel::kMaxReadBytes);
  ASSERT_TRUE(left_->send_one(bytes_of("hello")));
  ASSERT_TRUE(right_->receive(0, kConnectMs));
}

TEST_F(RdmaRead, WakesAReceiverThatSleeps) {
  const ExposedPlace place = expose();
  const std::array<std::size_t, 1> offsets{4096};
  for (int i = 0; i < 20; ++i) {
    std::thread receiver([&] { expect_read(offsets, 4096); });
    std::this_thread::sleep_for(std::chrono::milliseconds(i));
    ASSERT_TRUE(read(place, 0, offsets[0], 4096));
    receiver.join();
  }
}

TEST_F(RdmaRead, TakesSoManyAtATime) {
  const ExposedPlace place = expose();
  std::size_t begun = 0;
  while (read(place, 0, 0, 4096)) {
    ASSERT_LT(++begun, 1000U);
  }
  EXPECT_GE(begun, 4U);
  EXPECT_EQ(read(place, 0, 0, 4096).error().code, ErrorCode::kRetry);
  EXPECT_EQ(read(place, 0, 0, 0).error().code, ErrorCode::kInvalid);
  EXPECT_EQ(read(place, 0, 0, OneSidedChannel::kMaxReadBytes + 1).error().code,
            ErrorCode::kInvalid);
  const std::array<std::size_t, 1> offsets{0};
  for (std::size_t i = 0; i < begun; ++i) {
    expect_read(offsets, 4096);
  }
  // The last message is in use until something else is received.
  EXPECT_FALSE(right_->receive(0, 10));
  EXPECT_TRUE(read(place, 0, 0, 4096));
}

TEST_F(RdmaRead, ReachesNothingElse) {
  const ExposedPlace place = expose();
  ASSERT_TRUE(read(place, 0, kExposed, 4096));
  const auto message = right_->receive(0, kConnectMs);
  ASSERT_FALSE(message);
  EXPECT_EQ(message.error().code, ErrorCode::kPeerLost) << message.error().message();
}

TEST_F(RdmaRead, KeysDieWithTheConnection) {
  const ExposedPlace place = expose();
  left_.reset();
  right_.reset();
  connect();
  ASSERT_TRUE(read(place, 0, 0, 4096));
  const auto message = right_->receive(0, kConnectMs);
  ASSERT_FALSE(message);
  EXPECT_EQ(message.error().code, ErrorCode::kPeerLost) << message.error().message();
}

}  // namespace
}  // namespace migrate::test
