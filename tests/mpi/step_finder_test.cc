#include "mpi/step_finder.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <random>
#include <utility>

namespace migrate::mpi {
namespace {

constexpr std::uint64_t kMicrosecond = 1000;
constexpr std::uint64_t kMillisecond = 1000 * kMicrosecond;

enum Signature : std::uint64_t {
  kSend = 11,
  kResidual = 12,
  kOutput = 13,
  kWait = 14,
  kSetup = 15,
  kLater = 16
};

/// A rank whose clock goes as it is told.
class Steps : public testing::Test {
 protected:
  void pass(std::uint64_t time_ns) { now_ns_ += time_ns; }

  void call(Signature signature, bool of_all = false) {
    last_ = finder_.ended(signature, of_all, now_ns_);
    ended_ += last_ == StepChange::kEnded ? 1 : 0;
    began_ += last_ == StepChange::kBegan ? 1 : 0;
  }

  /// Steps that ended meanwhile.
  int take_ended() { return std::exchange(ended_, 0); }

  int began_ = 0;

 private:
  StepFinder finder_;
  std::uint64_t now_ns_ = 5;
  StepChange last_ = StepChange::kNone;
  int ended_ = 0;
};

TEST_F(Steps, EndWithTheCallThatAllMake) {
  const auto step = [&] {
    pass(kMillisecond);
    call(kSend);
    pass(20 * kMicrosecond);
    call(kResidual, true);
  };
  for (int i = 0; i < 20; ++i) {
    step();
  }
  EXPECT_EQ(began_, 1);
  take_ended();
  for (int i = 0; i < 1000; ++i) {
    step();
  }
  EXPECT_EQ(take_ended(), 1000);
  EXPECT_EQ(began_, 1);
}

TEST_F(Steps, AreTheMoreFrequentOfTwoThatAllMake) {
  for (int i = 1; i <= 500; ++i) {
    pass(kMillisecond);
    call(kResidual, true);
    if (i == 200) {
      take_ended();
    }
    if (i % 10 == 0) {
      call(kOutput, true);
    }
  }
  // But for those behind an output.
  EXPECT_EQ(take_ended(), 270);
}

// As ranks of LAMMPS do: all calls come in bursts, and only every hundredth step all ranks meet.
TEST_F(Steps, AreFoundBetweenBursts) {
  for (int i = 1; i <= 1000; ++i) {
    for (const Signature burst : {kWait, kSend}) {
      pass(10 * kMillisecond);
      for (int message = 0; message < 6; ++message) {
        pass(10 * kMicrosecond);
        call(burst);
      }
    }
    if (i % 100 == 0) {
      call(kResidual, true);
    }
    if (i == 250) {
      take_ended();
    }
  }
  // But for those that another call interrupts.
  EXPECT_NEAR(take_ended(), 750, 10);
}

TEST_F(Steps, AreFoundWhereTheMachineIsBusy) {
  std::mt19937 source(1);
  std::lognormal_distribution<double> delay(0, 0.7);
  for (int i = 0; i < 500; ++i) {
    pass(static_cast<std::uint64_t>(delay(source) * static_cast<double>(kMillisecond)));
    call(kResidual, true);
    if (i == 200) {
      take_ended();
    }
  }
  EXPECT_EQ(take_ended(), 299);
}

TEST_F(Steps, ChangeWithTheProgram) {
  for (int i = 0; i < 1000; ++i) {
    pass(kMillisecond);
    call(kSetup, true);
  }
  for (int i = 0; i < 3000; ++i) {
    pass(5 * kMillisecond);
    call(kLater);
  }
  EXPECT_EQ(began_, 2);
  take_ended();
  for (int i = 0; i < 100; ++i) {
    pass(5 * kMillisecond);
    call(kLater);
  }
  EXPECT_EQ(take_ended(), 100);
}

TEST_F(Steps, AreNoneWhereNothingComesBack) {
  for (std::uint64_t i = 100; i < 1100; ++i) {
    pass(kMillisecond);
    call(static_cast<Signature>(i));
  }
  EXPECT_EQ(began_, 0);
}

}  // namespace
}  // namespace migrate::mpi
