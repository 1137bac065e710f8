#include "libmigrate/move/move_report.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <string>

#include "pager/pager.h"

namespace migrate {
namespace {

using nlohmann::json;

class MoveReportTest : public testing::Test {
 protected:
  explicit MoveReportTest(int deadline_ms = 0)
      : report_(std::chrono::milliseconds(deadline_ms), [this] { return now_us_; }) {}

  json result(std::uint64_t wire_bytes = 0) const {
    json result;
    report_.add_to(result, wire_bytes);
    return result;
  }

  void owe(std::uint64_t pages) {
    wire::Progress progress;
    progress.set_owed_pages(pages);
    report_.note_progress(progress);
  }

  std::int64_t now_us_ = 1'000'000;
  MoveReport report_;
};

class DeadlineTest : public MoveReportTest {
 protected:
  DeadlineTest() : MoveReportTest(100) {}
};

TEST_F(MoveReportTest, TellsHowLongPhasesTook) {
  report_.begin();
  now_us_ += 300;
  report_.end_phase("inspect", report_.begun_us());
  now_us_ += 50;
  report_.end_phase("park", now_us_ - 20);
  report_.end_phase("restore", now_us_ - 50, report_.phase_us("park"));
  EXPECT_EQ(result()["phases_us"], (json{{"inspect", 300}, {"park", 20}, {"restore", 30}}));
  EXPECT_EQ(report_.phase_us("run"), 0);
}

TEST_F(MoveReportTest, ANewAttemptForgetsTheLast) {
  report_.begin();
  report_.end_phase("offer", report_.begun_us());
  now_us_ += 10;
  report_.begin();
  EXPECT_EQ(report_.begun_us(), now_us_);
  EXPECT_TRUE(result()["phases_us"].empty());
}

TEST_F(MoveReportTest, IsFrozenUntilItRunsThere) {
  const std::int64_t frozen = now_us_;
  now_us_ += 900;
  report_.note_running();
  now_us_ += 100;
  report_.note_frozen_since(frozen);
  EXPECT_EQ(result()["freeze_us"], 900);
}

TEST_F(MoveReportTest, TellsOfRoundsOnlyWhereSomeWereMade) {
  EXPECT_FALSE(result().contains("rounds"));
  report_.note_rounds({{"count", 2}});
  EXPECT_EQ(result()["rounds"]["count"], 2);
  report_.begin();  // Those of an attempt that came to nothing.
  EXPECT_FALSE(result().contains("rounds"));
}

TEST_F(MoveReportTest, TellsTheSizeOfTheImage) {
  report_.note_image(12'345);
  EXPECT_EQ(result()["image_bytes"], 12'345);
}

TEST_F(MoveReportTest, HasEveryCounter) {
  wire::Progress progress;
  std::uint64_t pages = 0;
  for (const PageCounter& counter : kPageCounters) {
    (*progress.mutable_pages())[std::string(counter.name)] = ++pages;
  }
  (*progress.mutable_pages())["of another version"] = 1000;
  progress.set_one_sided_pages(8);
  progress.set_faults(9);
  progress.set_fault_p50_us(10);
  progress.set_fault_p99_us(11);
  progress.set_fault_max_us(12);
  progress.set_owed_pages(13);
  progress.set_stalled_ns(14'900);
  report_.note_progress(progress);
  const json told = result();
  EXPECT_EQ(told["pages"], (json{{"fault", 1},
                                 {"prefetch", 2},
                                 {"push", 3},
                                 {"local_file", 4},
                                 {"zero", 5},
                                 {"staged", 6},
                                 {"starter", 7},
                                 {"never_present", 8},
                                 {"prefetch_useful", 9},
                                 {"prefetch_late", 10},
                                 {"prefetch_wasted", 11}}));
  EXPECT_EQ(
      told["faults"],
      (json{{"count", 9}, {"p50_us", 10}, {"p99_us", 11}, {"max_us", 12}, {"stalled_us", 14}}));
  EXPECT_EQ(told["one_sided_pages"], 8);
  EXPECT_EQ(told["owed_pages"], 13);
}

TEST_F(MoveReportTest, WhatIsOwedIsSaidUntilNothingIs) {
  report_.note_running();
  EXPECT_EQ(result(7)["wire_bytes"], 7);
  EXPECT_EQ(result()["state"], "running");
  EXPECT_EQ(result()["owed_nothing_after_us"], nullptr);
  EXPECT_EQ(result()["expected_independence_us"], nullptr);
  now_us_ += 5000;
  report_.note_done(4096);
  EXPECT_TRUE(report_.done());
  EXPECT_EQ(result(0)["wire_bytes"], 4096);
  EXPECT_EQ(result()["state"], "done");
  EXPECT_EQ(result()["owed_nothing_after_us"], 5000);
  EXPECT_EQ(result()["expected_independence_us"], 0);
}

TEST_F(MoveReportTest, EstimatesWhenNothingWillBeOwed) {
  for (std::uint64_t owed = 1000; owed >= 500; owed -= 100) {
    owe(owed);
    now_us_ += 100'000;
  }
  const json expected = report_.progress_event(0)["expected_independence_us"];
  ASSERT_TRUE(expected.is_number());
  EXPECT_NEAR(expected.get<double>(), 500'000, 100'000);
}

TEST_F(MoveReportTest, AProgressEventTellsWhatArrivedAndHowFast) {
  report_.note_running();
  now_us_ += 2'000'000;
  wire::Progress progress;
  progress.set_owed_pages(5);
  (*progress.mutable_pages())["fault"] = 1;
  (*progress.mutable_pages())["prefetch"] = 2;
  (*progress.mutable_pages())["push"] = 3;
  (*progress.mutable_pages())["starter"] = 4;
  (*progress.mutable_pages())["zero"] = 100;
  report_.note_progress(progress);
  const json event = report_.progress_event(8192);
  EXPECT_EQ(event["event"], "progress");
  EXPECT_EQ(event["owed_pages"], 5);
  EXPECT_EQ(event["arrived_pages"], 10);
  EXPECT_EQ(event["bytes_per_second"], 4096);
}

TEST_F(MoveReportTest, WithoutADeadlineNoneIsMissed) {
  report_.note_running();
  now_us_ += 1'000'000'000;
  EXPECT_FALSE(report_.misses_deadline());
  EXPECT_FALSE(result().contains("deadline_missed"));
}

TEST_F(DeadlineTest, IsMissedOnce) {
  report_.note_running();
  now_us_ += 100'000;
  EXPECT_FALSE(report_.misses_deadline());
  EXPECT_EQ(result()["deadline_missed"], false);
  now_us_ += 1;
  EXPECT_TRUE(report_.misses_deadline());
  EXPECT_FALSE(report_.misses_deadline());
  EXPECT_EQ(result()["deadline_missed"], true);
}

TEST_F(DeadlineTest, IsNotMissedByWhoOwesNothing) {
  report_.note_running();
  report_.note_done(0);
  now_us_ += 1'000'000;
  EXPECT_FALSE(report_.misses_deadline());
}

}  // namespace
}  // namespace migrate
