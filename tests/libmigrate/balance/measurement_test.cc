#include "libmigrate/balance/measurement.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace migrate::balance {
namespace {

using nlohmann::json;

/// Four ranks on two equal hosts, 100 steps in ten seconds, and each worked for a fifth of that.
class MeasurementTest : public testing::Test {
 protected:
  MeasurementTest() {
    report = {{"job", "melt"},
              {"ranks", 4},
              {"elapsed_s", 10},
              {"steps", 100},
              {"hosts", json::array({host("a"), host("b")})},
              {"measured", json::array()}};
    for (int number = 0; number < 4; ++number) {
      report["measured"].push_back({{"rank", number},
                                    {"host", number < 2 ? "a" : "b"},
                                    {"pid", 100 + number},
                                    {"state", "running"},
                                    {"memory_bytes", 1e6},
                                    {"has_moved", number == 3},
                                    {"outside_s", 4},
                                    {"waited_s", 2},
                                    {"held_up_s", 0.1},
                                    {"processor_s", 5},
                                    {"partners", json::array({json{(number + 1) % 4, 500, 5}})}});
    }
  }

  static json host(const std::string& name) {
    return {{"asked_as", name}, {"name", name}, {"elapsed_s", 10},
            {"processors", 4},  {"quota", 1},   {"used_s", 10},
            {"throttled_s", 1}, {"rate", 1000}, {"memory_available_bytes", 1e9}};
  }

  Measurement read() {
    auto found = measurer.read(report.dump());
    EXPECT_TRUE(found) << found.error().message();
    return found ? *found : Measurement();
  }

  Measurer measurer{{"a", "b"}};
  json report;
};

TEST_F(MeasurementTest, WorkIsWhatAProcessorDidOutsideCalls) {
  const Measurement found = read();
  EXPECT_TRUE(found.is_complete());
  EXPECT_TRUE(found.has_steps);
  EXPECT_DOUBLE_EQ(found.job.step_s, 0.1);
  ASSERT_EQ(found.job.ranks.size(), 4U);
  for (const Rank& rank : found.job.ranks) {
    EXPECT_DOUBLE_EQ(rank.work_s, 0.02);
  }
  EXPECT_EQ(found.pids, (std::vector<std::int64_t>{100, 101, 102, 103}));
  EXPECT_EQ(current_placement(found.job), (Placement{0, 0, 1, 1}));
}

// Each of a host waits for a processor as long as its ranks do on average.
TEST_F(MeasurementTest, AHostHoldsUpWhomItDoesNotLetSee) {
  EXPECT_EQ(read().job.hosts[1].delay_s, 0);  // As everywhere.
  measurer = Measurer({"a", "b"});
  report["measured"][2]["held_up_s"] = 3;
  report["measured"][3]["held_up_s"] = 5;
  const Measurement found = read();
  EXPECT_EQ(found.job.hosts[0].delay_s, 0);
  EXPECT_DOUBLE_EQ(found.job.hosts[1].delay_s, 0.04 - 0.001);
}

TEST_F(MeasurementTest, AHostWithoutRanksIsTakenToHoldUpNone) {
  report["measured"][2]["held_up_s"] = 5;
  read();
  report["measured"][2]["host"] = "a";
  report["measured"][3]["host"] = "a";
  EXPECT_EQ(read().job.hosts[1].delay_s, 0);
}

TEST_F(MeasurementTest, AQuotaIsAllThereIs) {
  EXPECT_DOUBLE_EQ(read().job.hosts[0].processors, 1);
  measurer = Measurer({"a", "b"});
  report["hosts"][0]["quota"] = nullptr;
  EXPECT_DOUBLE_EQ(read().job.hosts[0].processors, 4);
}

TEST_F(MeasurementTest, OthersLeaveTheRest) {
  report["hosts"][1]["used_s"] = 13;  // Ranks have used ten of them.
  EXPECT_DOUBLE_EQ(read().job.hosts[1].processors, 0.7);
}

TEST_F(MeasurementTest, OthersWouldHaveToShare) {
  report["hosts"][1]["quota"] = 2;
  report["hosts"][1]["used_s"] = 20;
  report["measured"][2]["host"] = "a";
  report["measured"][3]["host"] = "a";
  EXPECT_NEAR(read().job.hosts[1].processors, 2.0 / 3, 1e-9);
}

TEST_F(MeasurementTest, WhoIsHeldUpIsSlower) {
  EXPECT_DOUBLE_EQ(read().job.hosts[0].speed, 1) << "two ranks that share one processor";
  measurer = Measurer({"a", "b"});
  for (int number = 0; number < 2; ++number) {
    report["measured"][number]["waited_s"] = 3;
  }
  EXPECT_DOUBLE_EQ(read().job.hosts[0].speed, 0.5);
}

TEST_F(MeasurementTest, AHostWithoutRanksIsThoughtToServeThemAsTheOthersDo) {
  report["hosts"].push_back(host("c"));
  report["hosts"][2]["used_s"] = 0;
  measurer = Measurer({"a", "b", "c"});
  for (int number = 0; number < 2; ++number) {
    report["measured"][number]["waited_s"] = 3;
  }
  EXPECT_DOUBLE_EQ(read().job.hosts[2].speed, 0.75);
}

TEST_F(MeasurementTest, OneMomentChangesHalf) {
  read();
  report["hosts"][0]["used_s"] = 15;
  EXPECT_DOUBLE_EQ(read().job.hosts[0].processors, 0.75);
}

TEST_F(MeasurementTest, ASlowerProcessorDoesLessInASecond) {
  report["hosts"][1]["rate"] = 500;
  const Measurement found = read();
  EXPECT_DOUBLE_EQ(found.job.hosts[1].speed, 0.5);
  EXPECT_DOUBLE_EQ(found.job.ranks[0].work_s, 0.02);
  EXPECT_DOUBLE_EQ(found.job.ranks[2].work_s, 0.01);
  // As fast as it ever was: a moment in which it was disturbed says nothing of the processor.
  report["hosts"][1]["rate"] = 1000;
  EXPECT_DOUBLE_EQ(read().job.hosts[1].speed, 1);
  report["hosts"][1]["rate"] = 500;
  EXPECT_DOUBLE_EQ(read().job.hosts[1].speed, 1);
}

TEST_F(MeasurementTest, WithoutStepsASecondStandsForOne) {
  report["steps"] = 0;
  const Measurement found = read();
  EXPECT_FALSE(found.has_steps);
  EXPECT_DOUBLE_EQ(found.job.step_s, 1);
  EXPECT_DOUBLE_EQ(found.job.ranks[0].work_s, 0.2);
}

TEST_F(MeasurementTest, WhoTalksToWhom) {
  const Measurement found = read();
  ASSERT_EQ(found.job.traffic.size(), 4U);
  for (const Traffic& each : found.job.traffic) {
    EXPECT_LT(each.one, each.other);
    EXPECT_DOUBLE_EQ(each.bytes, 5);
    EXPECT_DOUBLE_EQ(each.messages, 0.05);
  }
  EXPECT_FALSE(found.job.ranks[0].by_home);
  EXPECT_TRUE(found.job.ranks[3].by_home);
}

TEST_F(MeasurementTest, AHostThatIsSilentTakesNobody) {
  report["hosts"].erase(1);
  report["measured"].erase(3);
  report["measured"].erase(2);
  const Measurement found = read();
  EXPECT_FALSE(found.is_complete());
  EXPECT_DOUBLE_EQ(found.job.hosts[1].processors, 0);
}

TEST_F(MeasurementTest, HasEndedWithItsLastRank) {
  EXPECT_FALSE(read().has_ended);
  for (json& each : report["measured"]) {
    EXPECT_FALSE(read().has_ended);
    each["state"] = "ended";
  }
  EXPECT_TRUE(read().has_ended);
}

TEST_F(MeasurementTest, WhatIsNoReportIsRefused) {
  EXPECT_FALSE(measurer.read("no"));
  EXPECT_FALSE(measurer.read("{}"));
  report["measured"][0]["host"] = "c";
  EXPECT_FALSE(measurer.read(report.dump()));
}

}  // namespace
}  // namespace migrate::balance
