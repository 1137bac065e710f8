#include "tests/transport/channel_contract.h"

#include <poll.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <thread>
#include <vector>

#include "tests/transport/text_bytes.h"

namespace migrate::test {
namespace {

using Bytes = std::vector<std::byte>;

/// `size` bytes that differ from those of other seeds. They are made once for all tests, which
/// otherwise would spend their time on it.
std::span<const std::byte> pattern(std::size_t size, unsigned seed) {
  constexpr std::size_t kStep = 61;
  constexpr std::size_t kSeeds = 256;
  static const std::vector<std::uint32_t> words = [] {
    std::vector<std::uint32_t> made((kMaxMessageBytes + kSeeds * kStep) / sizeof(std::uint32_t));
    std::uint32_t state = 1;
    for (std::uint32_t& word : made) {
      state = state * 1664525U + 1013904223U;
      word = state ^ (state >> 16U);
    }
    return made;
  }();
  return std::as_bytes(std::span(words)).subspan(seed * kStep, size);
}

bool same(std::span<const std::byte> left, std::span<const std::byte> right) {
  return left.size() == right.size() && std::memcmp(left.data(), right.data(), left.size()) == 0;
}

TEST_P(ChannelContract, CarriesMessagesInOrderBothWays) {
  for (int i = 0; i < 50; ++i) {
    ASSERT_TRUE(left_->send_one(bytes_of("ping " + std::to_string(i))));
    ASSERT_TRUE(right_->send_one(bytes_of("pong " + std::to_string(i))));
  }
  for (int i = 0; i < 50; ++i) {
    const auto ping = right_->receive();
    ASSERT_TRUE(ping) << ping.error().message();
    EXPECT_EQ(text_of(*ping), "ping " + std::to_string(i));
    const auto pong = left_->receive(1000, 1000);
    ASSERT_TRUE(pong) << pong.error().message();
    EXPECT_EQ(text_of(*pong), "pong " + std::to_string(i));
  }
}

TEST_P(ChannelContract, JoinsPartsAndSkipsEmptyOnes) {
  const std::vector<std::span<const std::byte>> parts{
      {}, bytes_of("a"), bytes_of("bc"), {}, bytes_of("def"), bytes_of("g"), bytes_of("h"), {}};
  ASSERT_TRUE(left_->send(parts));
  EXPECT_EQ(text_of(right_->receive().value()), "abcdefgh");
}

TEST_P(ChannelContract, RefusesBadMessagesAndStaysUsable) {
  EXPECT_EQ(left_->send({}).error().code, ErrorCode::kInvalid);
  EXPECT_EQ(left_->send_one({}).error().code, ErrorCode::kInvalid);
  const Bytes large(kMaxMessageBytes + 1);
  EXPECT_EQ(left_->send_one(large).error().code, ErrorCode::kInvalid);
  const std::vector<std::span<const std::byte>> nine(9, bytes_of("x"));
  EXPECT_EQ(left_->send(nine).error().code, ErrorCode::kInvalid);
  ASSERT_TRUE(left_->send_one(bytes_of("fine")));
  EXPECT_EQ(text_of(right_->receive().value()), "fine");
}

TEST_P(ChannelContract, CarriesEverySizeWhole) {
  std::vector<std::size_t> sizes{1, 2, 3, 4, 5, 100, 4095, 4096, 4097};
  for (std::size_t base : {16384U, 20480U, 65536U, 1U << 20U, 4U << 20U}) {
    for (std::size_t size = base - 5; size <= base + 5; ++size) {
      sizes.push_back(size);
    }
  }
  sizes.push_back(kMaxMessageBytes);
  sizes.push_back(1);
  std::thread sender([&] {
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      const auto message = pattern(sizes[i], static_cast<unsigned>(i));
      const std::size_t cut = sizes[i] / 3;
      const std::vector<std::span<const std::byte>> parts{message.first(cut), message.subspan(cut)};
      const auto sent = left_->send(parts);
      ASSERT_TRUE(sent) << sent.error().message();
    }
  });
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    const auto message = right_->receive(i % 2 == 0 ? 200 : 0);
    ASSERT_TRUE(message) << message.error().message();
    EXPECT_TRUE(same(*message, pattern(sizes[i], static_cast<unsigned>(i)))) << sizes[i];
  }
  sender.join();
}

TEST_P(ChannelContract, TryReceiveNeverBlocks) {
  EXPECT_FALSE(right_->try_receive().value().has_value());
  ASSERT_TRUE(left_->send_one(bytes_of("one")));
  ASSERT_TRUE(left_->send_one(bytes_of("two")));
  std::vector<std::string> got;
  while (got.size() < 2) {
    if (const auto message = right_->try_receive().value()) {
      got.push_back(text_of(*message));
    }
  }
  EXPECT_EQ(got, (std::vector<std::string>{"one", "two"}));
  EXPECT_FALSE(right_->try_receive().value().has_value());
}

TEST_P(ChannelContract, ReceiveTimesOut) {
  const auto start = std::chrono::steady_clock::now();
  const auto none = right_->receive(100, 30);
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().code, ErrorCode::kRetry);
  EXPECT_GE(std::chrono::steady_clock::now() - start, std::chrono::milliseconds(30));
  ASSERT_TRUE(left_->send_one(bytes_of("late")));
  EXPECT_EQ(text_of(right_->receive(0, 5000).value()), "late");
}

// A reader that sleeps on poll_fd() as documented must never sleep on a message.
TEST_P(ChannelContract, ArmAndPollMissNothing) {
  constexpr int kMessages = 2000;
  std::thread sender([&] {
    for (int i = 0; i < kMessages; ++i) {
      ASSERT_TRUE(left_->send_one(bytes_of(std::to_string(i))));
    }
  });
  for (int next = 0; next < kMessages;) {
    if (!right_->arm().value()) {
      pollfd entry{right_->poll_fd(), POLLIN, 0};
      ASSERT_EQ(::poll(&entry, 1, 5000), 1) << "slept on message " << next;
    }
    if (const auto message = right_->try_receive().value()) {
      ASSERT_EQ(text_of(*message), std::to_string(next++));
    }
  }
  sender.join();
  EXPECT_FALSE(right_->try_receive().value().has_value());
  EXPECT_FALSE(right_->arm().value());
  pollfd entry{right_->poll_fd(), POLLIN, 0};
  EXPECT_EQ(::poll(&entry, 1, 0), 0);
}

TEST_P(ChannelContract, SenderWaitsForTheReceiver) {
  constexpr std::size_t kMessages = 64;
  const auto message = pattern(1U << 20U, 7);
  std::atomic<std::size_t> sent{0};
  std::thread sender([&] {
    for (std::size_t i = 0; i < kMessages; ++i) {
      ASSERT_TRUE(left_->send_one(message));
      sent.fetch_add(1);
    }
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  EXPECT_LT(sent.load(), kMessages);
  for (std::size_t i = 0; i < kMessages; ++i) {
    ASSERT_TRUE(same(right_->receive().value(), message));
  }
  sender.join();
  EXPECT_EQ(sent.load(), kMessages);
}

TEST_P(ChannelContract, BothSidesMaySendWhileTheyReceive) {
  constexpr unsigned kMessages = 200;
  const auto send_all = [](Channel& channel) {
    for (unsigned i = 0; i < kMessages; ++i) {
      ASSERT_TRUE(channel.send_one(pattern(1 + i * 997, i)));
    }
  };
  const auto receive_all = [](Channel& channel) {
    for (unsigned i = 0; i < kMessages; ++i) {
      const auto message = channel.receive(50);
      ASSERT_TRUE(message) << message.error().message();
      ASSERT_TRUE(same(*message, pattern(1 + i * 997, i)));
    }
  };
  std::vector<std::thread> threads;
  threads.emplace_back([&] { send_all(*left_); });
  threads.emplace_back([&] { send_all(*right_); });
  threads.emplace_back([&] { receive_all(*left_); });
  threads.emplace_back([&] { receive_all(*right_); });
  for (std::thread& thread : threads) {
    thread.join();
  }
}

TEST_P(ChannelContract, CountsBytes) {
  const std::uint64_t sent_before = left_->bytes_sent();
  const std::uint64_t received_before = right_->bytes_received();
  ASSERT_TRUE(left_->send_one(pattern(10000, 1)));
  ASSERT_TRUE(right_->receive());
  const std::uint64_t sent = left_->bytes_sent() - sent_before;
  EXPECT_GT(sent, 10000U);
  EXPECT_LT(sent, 11000U);
  EXPECT_EQ(right_->bytes_received() - received_before, sent);
}

TEST_P(ChannelContract, ShutdownWakesBlockedReceivers) {
  for (const bool own : {true, false}) {
    if (!own) {
      SetUp();
    }
    std::thread receiver([&] {
      const auto message = left_->receive();
      ASSERT_FALSE(message);
      EXPECT_EQ(message.error().code, ErrorCode::kPeerLost);
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    (own ? left_ : right_)->shutdown();
    receiver.join();
  }
}

TEST_P(ChannelContract, ShutdownWakesBlockedSenders) {
  for (const bool own : {true, false}) {
    if (!own) {
      SetUp();
    }
    std::thread sender([&] {
      const auto message = pattern(1U << 20U, 7);
      for (;;) {
        const auto sent = left_->send_one(message);
        if (!sent) {
          EXPECT_EQ(sent.error().code, ErrorCode::kPeerLost) << sent.error().message();
          return;
        }
      }
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    (own ? left_ : right_)->shutdown();
    sender.join();
  }
}

TEST_P(ChannelContract, AfterShutdownEveryCallFails) {
  ASSERT_TRUE(right_->send_one(bytes_of("unread")));
  left_->shutdown();
  EXPECT_EQ(left_->send_one(bytes_of("x")).error().code, ErrorCode::kPeerLost);
  EXPECT_EQ(left_->try_receive().error().code, ErrorCode::kPeerLost);
  EXPECT_EQ(left_->receive().error().code, ErrorCode::kPeerLost);
  EXPECT_EQ(right_->receive().error().code, ErrorCode::kPeerLost);
  EXPECT_EQ(right_->try_receive().error().code, ErrorCode::kPeerLost);
  Result<void> sent;
  for (int i = 0; i < 1000 && sent; ++i) {
    sent = right_->send_one(bytes_of("x"));
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  ASSERT_FALSE(sent);
  EXPECT_EQ(sent.error().code, ErrorCode::kPeerLost);
  left_->shutdown();
}

TEST_P(ChannelContract, WhatWasSentBeforeTheEndArrives) {
  ASSERT_TRUE(left_->send_one(bytes_of("last words")));
  left_.reset();
  EXPECT_EQ(text_of(right_->receive().value()), "last words");
  EXPECT_EQ(right_->receive().error().code, ErrorCode::kPeerLost);
  EXPECT_EQ(right_->receive(100).error().code, ErrorCode::kPeerLost);
}

}  // namespace
}  // namespace migrate::test
