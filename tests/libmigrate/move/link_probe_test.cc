// What the way to a destination carries, over channels in memory.
#include "libmigrate/move/link_probe.h"

#include <gtest/gtest.h>

#include <thread>
#include <utility>

#include "transport/memory_channel.h"

namespace migrate {
namespace {

class LinkProbe : public testing::Test {
 protected:
  LinkProbe() {
    auto [here, there] = make_memory_channels().value();
    here_ = std::make_unique<ControlChannel>(std::move(here), "destination");
    there_ = std::make_unique<ControlChannel>(std::move(there), "source");
  }

  static wire::ControlMessage probe() {
    wire::ControlMessage message;
    message.mutable_probe();
    return message;
  }

  std::unique_ptr<ControlChannel> here_;
  std::unique_ptr<ControlChannel> there_;
};

TEST_F(LinkProbe, TellsHowFastTheWayIs) {
  std::thread destination([this] { answer_probes(*there_); });
  const auto link = probe_link(*here_);
  here_.reset();
  destination.join();
  ASSERT_TRUE(link) << link.error().message();
  EXPECT_GT(link->bytes_per_second, 0);
  EXPECT_GT(link->round_trip_us, 0);
}

TEST_F(LinkProbe, EndsWhereSomethingElseIsAnswered) {
  std::thread destination([this] {
    ASSERT_TRUE(there_->receive(0, 2000));
    wire::ControlMessage message;
    message.mutable_restored();
    ASSERT_TRUE(there_->send(message));
  });
  EXPECT_EQ(probe_link(*here_).error().code, ErrorCode::kCorrupt);
  destination.join();
}

TEST_F(LinkProbe, EndsWithTheConnection) {
  there_.reset();
  EXPECT_EQ(probe_link(*here_).error().code, ErrorCode::kPeerLost);
}

TEST_F(LinkProbe, AnswersNothingElse) {
  wire::ControlMessage message;
  message.mutable_run();
  ASSERT_TRUE(here_->send(message));
  answer_probes(*there_);
  const auto said = here_->try_receive();
  ASSERT_TRUE(said);
  EXPECT_FALSE(*said);
}

// However many come.
TEST_F(LinkProbe, AnswersSoManyAndNoMore) {
  constexpr int kMore = 200;
  std::thread destination([this] {
    answer_probes(*there_);
    there_.reset();
  });
  int answered = 0;
  for (int i = 0; i < kMore && here_->send(probe()); ++i) {
    if (!here_->receive(0, 2000)) {
      break;
    }
    ++answered;
  }
  destination.join();
  EXPECT_GT(answered, 4);
  EXPECT_LT(answered, kMore);
}

}  // namespace
}  // namespace migrate
