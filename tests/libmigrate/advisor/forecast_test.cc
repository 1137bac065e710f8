// Which mode is chosen for which program, as a table.
#include "libmigrate/advisor/forecast.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <string_view>
#include <vector>

namespace migrate {
namespace {

constexpr std::uint64_t kPagesOfMib = 256;
constexpr double kMibPerSecond = 1U << 20U;
constexpr std::uint64_t kFourMib = std::uint64_t{4} << 20U;

Speeds speeds(double mib_per_second) {
  const double bytes = mib_per_second * kMibPerSecond;
  return {.behind = bytes, .stopped = bytes, .ahead = bytes, .freeze_us = 5000};
}

/// Writes that much within 10, 100 and 200 ms.
MoveFacts facts(std::uint64_t mib, double soon, double half, double whole,
                double mib_per_second = 1000) {
  MoveFacts all;
  all.memory.pages = mib * kPagesOfMib;
  all.memory.writes.seen = {{10'000, soon}, {100'000, half}, {200'000, whole}};
  all.speeds = speeds(mib_per_second);
  return all;
}

std::string_view chosen(const MoveFacts& facts, Wish wish) {
  return choose_mode(facts, wish).best().plan.word;
}

const Forecast& of(const ModeChoice& choice, std::string_view word) {
  for (const Forecast& one : choice.all) {
    if (one.plan.word == word) {
      return one;
    }
  }
  ADD_FAILURE() << "no forecast for " << word;
  return choice.all.front();
}

struct Program {
  const char* name;
  MoveFacts facts;
  std::string stop;
  std::string exposure;
  std::string bytes;
};

MoveFacts without_rounds(MoveFacts facts) {
  facts.no_rounds = "NO_WRITE_TRACKING: Linux 6.7";
  return facts;
}

std::vector<Program> programs() {
  return {
      {"reads only", facts(1024, 0, 0, 0), "hybrid", "precopy", "demand"},
      {"writes all, all the time", facts(1024, 1, 1, 1), "lazy", "eager", "demand"},
      {"walks through all, writing", facts(1024, 0.01, 0.1, 0.2, 500), "lazy", "eager", "demand"},
      {"small", facts(1, 0, 0, 0), "lazy", "eager", "demand"},
      {"small, writes all", facts(1, 1, 1, 1), "lazy", "eager", "eager"},
      {"big, little written", facts(8192, 0.001, 0.001, 0.001), "lazy", "precopy", "demand"},
      {"hot set of a tenth", facts(1024, 0.1, 0.1, 0.1), "hybrid", "precopy", "demand"},
      {"hot set of most", facts(1024, 0.55, 0.6, 0.62), "lazy", "eager", "demand"},
      {"comes back to a fifth", facts(512, 0.02, 0.15, 0.19), "hybrid", "precopy", "demand"},
      {"reads only, slow link", facts(256, 0, 0, 0, 10), "hybrid", "precopy", "demand"},
      {"writes all, slow link", facts(256, 1, 1, 1, 10), "lazy", "eager", "demand"},
      {"reads only, no rounds here", without_rounds(facts(1024, 0, 0, 0)), "lazy", "eager",
       "demand"},
      {"has nothing", facts(0, 0, 0, 0), "lazy", "lazy", "lazy"},
  };
}

TEST(ModeChoice, IsThatOfTheTable) {
  for (const Program& program : programs()) {
    EXPECT_EQ(chosen(program.facts, Wish::kStop), program.stop) << program.name;
    EXPECT_EQ(chosen(program.facts, Wish::kExposure), program.exposure) << program.name;
    EXPECT_EQ(chosen(program.facts, Wish::kBytes), program.bytes) << program.name;
  }
}

// Whatever the program, the wish and the hosts.
TEST(ModeChoice, IsNeverOneThatIsOutOfTheQuestion) {
  for (const std::uint64_t mib : {0U, 1U, 64U, 1024U, 65536U}) {
    for (const double half : {0.0, 0.001, 0.1, 0.5, 1.0}) {
      for (const double more : {1.0, 1.3, 2.0, 3.0}) {
        for (const double speed : {1.0, 100.0, 5000.0}) {
          const MoveFacts all = facts(mib, half / 2, half, std::min(1.0, half * more), speed);
          for (const Wish wish : {Wish::kStop, Wish::kExposure, Wish::kBytes}) {
            const ModeChoice choice = choose_mode(all, wish);
            EXPECT_EQ(choice.all.size(), kModes.size() - 1);
            EXPECT_TRUE(choice.best().why_not.empty());
            EXPECT_FALSE(choice.best().plan.decides);
            EXPECT_FALSE(choose_mode(without_rounds(all), wish).best().plan.rounds);
            for (const Forecast& one : choice.all) {
              EXPECT_LE(one.least_bytes, one.bytes);
              EXPECT_GE(one.stop_us, 0);
            }
          }
        }
      }
    }
  }
}

TEST(ModeChoice, SaysWhyAModeIsOutOfTheQuestion) {
  const ModeChoice busy = choose_mode(facts(1024, 1, 1, 1), Wish::kExposure);
  EXPECT_NE(of(busy, "precopy").why_not.find("as fast as could be sent"), std::string::npos);
  EXPECT_NE(of(busy, "hybrid").why_not.find("as fast as could be sent"), std::string::npos);
  EXPECT_TRUE(of(busy, "eager").why_not.empty());
  const ModeChoice old = choose_mode(without_rounds(facts(1024, 0, 0, 0)), Wish::kExposure);
  EXPECT_NE(of(old, "precopy").why_not.find("NO_WRITE_TRACKING"), std::string::npos);
}

TEST(Forecast, AddsUpPagesThreadsAndFiles) {
  MoveFacts all = facts(1000, 0, 0, 0);
  all.threads = 11;
  all.content_bytes = kFourMib;
  const Forecast lazy = forecast(find_mode("lazy").value(), all);
  EXPECT_NEAR(static_cast<double>(lazy.stop_us), 5000 + 10 * kFreezeUsPerThread + 4000, 2);
  EXPECT_NEAR(static_cast<double>(*lazy.independence_us), 1e6, 5000);
  EXPECT_NEAR(static_cast<double>(lazy.bytes), 1104e6 * 1.048576, 4e6);  // A tenth of it twice.
  const Forecast eager = forecast(find_mode("eager").value(), all);
  EXPECT_NEAR(static_cast<double>(eager.stop_us - lazy.stop_us), 1e6, 5000);
  EXPECT_EQ(*eager.independence_us, 0);
  const Forecast demand = forecast(find_mode("demand").value(), all);
  EXPECT_FALSE(demand.independence_us);
  EXPECT_EQ(demand.bytes, eager.bytes);
  EXPECT_EQ(demand.least_bytes, kFourMib);
}

TEST(Forecast, AFreezeAfterRoundsIsOneOfItsOwn) {
  MoveFacts all = facts(1, 0, 0, 0);
  all.speeds.freeze_after_rounds_us = 8000;
  EXPECT_NEAR(static_cast<double>(forecast(find_mode("lazy").value(), all).stop_us), 5000, 2);
  EXPECT_NEAR(static_cast<double>(forecast(find_mode("hybrid").value(), all).stop_us), 8000, 10);
}

TEST(Forecast, RoundsSendAgainWhatIsWritten) {
  const MoveFacts all = facts(1024, 0.1, 0.1, 0.1);
  const Forecast lazy = forecast(find_mode("lazy").value(), all);
  const Forecast precopy = forecast(find_mode("precopy").value(), all);
  const Forecast eager = forecast(find_mode("eager").value(), all);
  EXPECT_GT(precopy.bytes, eager.bytes + eager.bytes / 10 - 1);
  EXPECT_LT(precopy.bytes, eager.bytes * 2);
  EXPECT_GT(precopy.stop_us, lazy.stop_us);
  const Forecast hybrid = forecast(find_mode("hybrid").value(), all);
  EXPECT_LT(*hybrid.independence_us, *lazy.independence_us);
}

TEST(WriteCurve, GoesOnAsItBegan) {
  const WriteCurve walk{{{10, 0.02}, {50, 0.1}, {100, 0.2}}};
  EXPECT_DOUBLE_EQ(walk.within(50), 0.1);
  EXPECT_DOUBLE_EQ(walk.within(75), 0.15);
  EXPECT_NEAR(walk.within(200), 0.4, 1e-9);
  EXPECT_DOUBLE_EQ(walk.within(10'000), 1);
  EXPECT_DOUBLE_EQ(walk.in_the_end(), 1);
}

// 0.4 * (1 - 2^(-t/50)).
TEST(WriteCurve, GetsKnownWhereTheProgramComesBack) {
  const WriteCurve set{{{50, 0.2}, {100, 0.3}}};
  EXPECT_NEAR(set.within(150), 0.35, 0.01);
  EXPECT_NEAR(set.within(1e6), 0.4, 0.02);
  EXPECT_NEAR(set.in_the_end(), 0.4, 0.02);
  EXPECT_LT(set.within(200), set.within(300));
}

// How much less it would be in less time nobody has seen.
TEST(WriteCurve, IsFlatWhereAllIsWrittenAtOnce) {
  const WriteCurve set{{{10, 0.3}, {50, 0.3}, {100, 0.3}}};
  EXPECT_DOUBLE_EQ(set.within(1e6), 0.3);
  EXPECT_DOUBLE_EQ(set.within(50), 0.3);
  EXPECT_DOUBLE_EQ(set.within(1), 0.3);
  EXPECT_DOUBLE_EQ(set.within(0), 0);
  EXPECT_DOUBLE_EQ(set.in_the_end(), 0.3);
}

TEST(WriteCurve, KnowsNothingOfWhatWasNotWatched) {
  EXPECT_EQ(WriteCurve().within(1e9), 0);
  EXPECT_EQ(WriteCurve().in_the_end(), 0);
  const WriteCurve late{{{50, 0}, {100, 0.1}}};
  EXPECT_NEAR(late.within(200), 0.3, 1e-9);
  EXPECT_DOUBLE_EQ(late.in_the_end(), 1);
}

TEST(Speeds, WhatIsNotKnownComesFromWhatIs) {
  const LinkSpeed link{.bytes_per_second = 7e6, .round_trip_us = 1000};
  const Speeds probed = Speeds().completed(link, 0);
  EXPECT_EQ(probed.behind, 7e6);
  EXPECT_EQ(probed.stopped, 7e6);
  EXPECT_EQ(probed.ahead, 7e6);
  EXPECT_GT(probed.freeze_us, 2000);
  EXPECT_GT(Speeds().completed({}, 0).behind, 0);
  const Speeds moved = Speeds{.behind = 3e6, .freeze_us = 900}.completed(link, 0);
  EXPECT_EQ(moved.stopped, 3e6);
  EXPECT_EQ(moved.freeze_us, 900);
  EXPECT_EQ(Speeds{.freeze_after_rounds_us = 1200}.completed(link, 0).freeze_us, 1200);
  EXPECT_FALSE(Speeds{.freeze_us = 900}.knows_pages());
  const Speeds limited = Speeds{.behind = 3e6, .stopped = 1e6}.completed({}, 2e6);
  EXPECT_EQ(limited.behind, 2e6);
  EXPECT_EQ(limited.stopped, 1e6);
}

}  // namespace
}  // namespace migrate
