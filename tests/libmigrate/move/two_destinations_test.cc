// One process that is frozen once and handed over to two destinations, each over memory channels.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <memory>
#include <thread>

#include "libmigrate/move/frozen_source.h"
#include "libmigrate/move/handover.h"
#include "libmigrate/trace/tracee.h"
#include "tests/libmigrate/inspect/held_process.h"
#include "tests/libmigrate/move/held_state.h"
#include "tests/libmigrate/move/stand_ins.h"

namespace migrate::handover_testing {
namespace {

constexpr std::uint64_t kPages = 4;
constexpr std::size_t kDestinations = 2;

class TwoDestinations : public testing::Test {
 protected:
  TwoDestinations()
      : place_(::mmap(nullptr, kPages * kPageBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)),
        process_([this] { std::memset(place_, 7, kPages * kPageBytes); }) {
    options_.pid = process_.pid();
    options_.request.asker = {.user = 0, .group = 0, .capabilities = ~std::uint64_t{0}};
    options_.context = &context_;
  }
  ~TwoDestinations() override { ::munmap(place_, kPages * kPageBytes); }

  void SetUp() override {
    if (kIsThreadSanitizer) {
      GTEST_SKIP() << "ThreadSanitizer maps files that it has deleted, which is refused";
    }
    source_ = std::make_unique<FrozenSource>(
        options_, [](std::uint64_t) {}, report_, kDestinations);
    for (std::size_t i = 0; i < kDestinations; ++i) {
      handovers_[i] = make_handover(i);
    }
  }

  std::unique_ptr<Handover> make_handover(std::size_t number) {
    HandoverOptions options;
    options.destination = {.scheme = "tcp", .host = "there", .port = 1};
    options.plan = parse_offered_mode("lazy").value();
    options.transport = parse_page_transport("tcp").value();
    options.context = &context_;
    options.number = number;
    Handover::World world;
    world.connect = [this, number](Purpose purpose, const SessionId& session) {
      return there_[number].connect(purpose, session);
    };
    world.note = [](const wire::Outgoing&) { return Result<void>(); };
    return std::make_unique<Handover>(std::move(options), std::move(world), *source_, report_);
  }

  /// Frozen and parked once, it runs at both.
  void hand_over() {
    source_->begin();
    report_.begin();
    ASSERT_TRUE(source_->inspect());
    for (std::size_t i = 0; i < kDestinations; ++i) {
      there_[i].says = {offer_reply(), connected(), restored(), running()};
      ASSERT_TRUE(handovers_[i]->open());
      ASSERT_TRUE(handovers_[i]->offer(source_->describe({}).value(), {}));
      ASSERT_TRUE(handovers_[i]->connect_pages());
    }
    ASSERT_TRUE(source_->freeze());
    ASSERT_TRUE(source_->complete_image(0));
    ASSERT_TRUE(source_->take_judgement());
    for (const auto& handover : handovers_) {
      ASSERT_TRUE(handover->send_image(source_->serialise_image(), {}));
      ASSERT_TRUE(handover->serve());
    }
    ASSERT_TRUE(source_->prepare_to_park(handovers_[0]->session()));
    ASSERT_TRUE(source_->park());
    for (const auto& handover : handovers_) {
      ASSERT_TRUE(handover->await_restored());
      ASSERT_TRUE(handover->run(source_->parked().signals()));
    }
    source_->end_freeze();
  }

  std::uint64_t start() const { return reinterpret_cast<std::uint64_t>(place_); }
  /// The first byte of a page of the process: 7 until it was given back.
  int first_byte(std::uint64_t page) const {
    std::byte byte{};
    EXPECT_TRUE(read_memory(process_.pid(), start() + page * kPageBytes, std::span(&byte, 1)));
    return std::to_integer<int>(byte);
  }
  /// Handles what comes from both until the page is given back, or it takes too long.
  bool is_given_back(std::uint64_t page, int looks) {
    for (int look = 0; look < looks; ++look) {
      for (const auto& handover : handovers_) {
        handover->handle();
      }
      if (first_byte(page) != 7) {
        return true;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return false;
  }

  void* place_;
  test::HeldProcess process_;
  WorkerContext context_;
  SourceMoveOptions options_;
  MoveReport report_{std::chrono::milliseconds(0)};
  std::array<StandInDestination, kDestinations> there_;
  std::unique_ptr<FrozenSource> source_;
  std::array<std::unique_ptr<Handover>, kDestinations> handovers_;  // end before the memory
};

TEST_F(TwoDestinations, GetTheSameImageAndPages) {
  ASSERT_NO_FATAL_FAILURE(hand_over());
  std::array<std::string, kDestinations> images;
  for (std::size_t i = 0; i < kDestinations; ++i) {
    EXPECT_EQ(handovers_[i]->fate(), Fate::kRuns);
    for (auto heard = there_[i].hear(); heard; heard = there_[i].hear(100)) {
      if (heard->has_final()) {
        images[i] = heard->final().image().SerializeAsString();
      }
    }
    EXPECT_TRUE(there_[i].gets_page(start()));
  }
  EXPECT_FALSE(images[0].empty());
  EXPECT_EQ(images[0], images[1]);
  EXPECT_NE(handovers_[0]->session(), handovers_[1]->session());
}

TEST_F(TwoDestinations, KeepThePagesHereUntilBothHaveThem) {
  ASSERT_NO_FATAL_FAILURE(hand_over());
  there_[0].take_pushes();
  EXPECT_FALSE(is_given_back(1, 50));
  EXPECT_TRUE(there_[1].gets_page(start() + kPageBytes)) << "it has only been sent once";
  there_[1].take_pushes();
  EXPECT_TRUE(is_given_back(2, StandInDestination::kLookMs));
}

TEST_F(TwoDestinations, OfWhichOneHasEndedKeepWhatTheOtherNeeds) {
  ASSERT_NO_FATAL_FAILURE(hand_over());
  there_[1].say(verdict(wire::Verdict::ENDED, ""));
  EXPECT_FALSE(is_given_back(1, 50));
  EXPECT_EQ(handovers_[1]->fate(), Fate::kEnded);
  EXPECT_TRUE(there_[0].gets_page(start()));
  there_[0].take_pushes();
  EXPECT_TRUE(is_given_back(2, StandInDestination::kLookMs));
}

}  // namespace
}  // namespace migrate::handover_testing
