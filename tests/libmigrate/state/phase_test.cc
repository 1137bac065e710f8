#include "libmigrate/state/phase.h"

#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "libmigrate/state/session_file.h"

namespace migrate {
namespace {

constexpr int kSegv = SIGSEGV;
constexpr int kExited = 3 << 8;

std::vector<GuestPhase> guest_phases() {
  std::vector<GuestPhase> all;
  for (std::uint32_t number = 0; number < 100; ++number) {
    if (is_phase(number, false)) {
      all.push_back(GuestPhase{number});
    }
  }
  return all;
}

std::vector<HomePhase> home_phases() {
  std::vector<HomePhase> all;
  for (std::uint32_t number = 0; number < 200; ++number) {
    if (is_phase(number, true)) {
      all.push_back(HomePhase{number});
    }
  }
  return all;
}

TEST(PhaseTest, EachHasANameOfItsOwn) {
  std::set<std::string_view> guest;
  for (const GuestPhase phase : guest_phases()) {
    EXPECT_TRUE(guest.insert(to_string(phase)).second) << to_string(phase);
    EXPECT_FALSE(is_phase(static_cast<std::uint32_t>(phase), true));
  }
  std::set<std::string_view> home;
  for (const HomePhase phase : home_phases()) {
    EXPECT_TRUE(home.insert(to_string(phase)).second) << to_string(phase);
  }
  EXPECT_EQ(guest.size(), 15U);
  EXPECT_EQ(home.size(), 8U);
  EXPECT_EQ(to_string(GuestPhase{77}), "");
  EXPECT_EQ(to_string(HomePhase{77}), "");
}

// The numbers stand in files, which the next version of a worker reads.
TEST(PhaseTest, NumbersStay) {
  EXPECT_EQ(static_cast<int>(GuestPhase::kPrepared), 1);
  EXPECT_EQ(static_cast<int>(GuestPhase::kOver), 15);
  EXPECT_EQ(static_cast<int>(HomePhase::kOffered), 101);
  EXPECT_EQ(static_cast<int>(HomePhase::kEnded), 108);
}

// A worker takes its steps in this order; whoever of the others comes late changes nothing.
TEST(PhaseTest, AGuestGoesForwards) {
  const std::vector<GuestPhase> way = {GuestPhase::kPrepared, GuestPhase::kAwaitsRun,
                                       GuestPhase::kTold,     GuestPhase::kMarked,
                                       GuestPhase::kKept,     GuestPhase::kRan,
                                       GuestPhase::kServing,  GuestPhase::kIndependent};
  for (std::size_t now = 0; now < way.size(); ++now) {
    for (std::size_t wanted = 0; wanted < way.size(); ++wanted) {
      EXPECT_EQ(next_phase(way[now], way[wanted]), way[std::max(now, wanted)])
          << to_string(way[now]) << " " << to_string(way[wanted]);
    }
  }
  EXPECT_EQ(next_phase(GuestPhase::kInDoubt, GuestPhase::kIndependent), GuestPhase::kIndependent);
  EXPECT_EQ(next_phase(GuestPhase::kInDoubt, GuestPhase::kLeaving), GuestPhase::kLeaving);
  EXPECT_EQ(next_phase(GuestPhase::kLeaving, GuestPhase::kWentOn), GuestPhase::kWentOn);
}

TEST(PhaseTest, NoStepUndoesAnEnd) {
  for (const GuestPhase end : {GuestPhase::kNeverRan, GuestPhase::kEnded,
                               GuestPhase::kEndedIndependent, GuestPhase::kOver}) {
    for (const GuestPhase wanted : guest_phases()) {
      if (!has_left(wanted)) {
        EXPECT_TRUE(has_ended(next_phase(end, wanted))) << to_string(end) << to_string(wanted);
      }
    }
  }
  for (const GuestPhase wanted : guest_phases()) {
    EXPECT_TRUE(has_left(next_phase(GuestPhase::kLeaving, wanted)));
    EXPECT_EQ(next_phase(GuestPhase::kWentOn, wanted), GuestPhase::kWentOn);
    EXPECT_EQ(next_phase(GuestPhase::kOver, wanted), GuestPhase::kOver);
    if (wanted != GuestPhase::kRan) {
      EXPECT_EQ(next_phase(GuestPhase::kNeverRan, wanted), GuestPhase::kNeverRan);
    }
  }
  for (const HomePhase end : {HomePhase::kEnding, HomePhase::kChildrenLeft, HomePhase::kEnded}) {
    for (const HomePhase wanted : home_phases()) {
      EXPECT_GE(next_phase(end, wanted), end);
    }
  }
}

// What is owed is one fact and the end another: both are known, in whatever order they came.
TEST(PhaseTest, AnEndAndIndependenceMeet) {
  for (const GuestPhase now : {GuestPhase::kIndependent, GuestPhase::kInDoubt}) {
    EXPECT_EQ(next_phase(now, GuestPhase::kEnded), GuestPhase::kEndedIndependent);
  }
  EXPECT_EQ(next_phase(GuestPhase::kEnded, GuestPhase::kIndependent),
            GuestPhase::kEndedIndependent);
  EXPECT_EQ(next_phase(GuestPhase::kServing, GuestPhase::kEnded), GuestPhase::kEnded);
  EXPECT_FALSE(is_independent(GuestPhase::kEnded));
  EXPECT_TRUE(is_independent(GuestPhase::kEndedIndependent));
}

TEST(PhaseTest, OneKilledWithItsTracerNeverRan) {
  for (const GuestPhase now : {GuestPhase::kPrepared, GuestPhase::kAwaitsRun, GuestPhase::kTold}) {
    EXPECT_EQ(end_phase(now, SIGKILL), GuestPhase::kNeverRan);
    EXPECT_EQ(end_phase(now, kExited), GuestPhase::kNeverRan);
  }
  for (const GuestPhase now : {GuestPhase::kMarked, GuestPhase::kKept}) {
    EXPECT_EQ(end_phase(now, SIGKILL), GuestPhase::kNeverRan);
    EXPECT_EQ(end_phase(now, kSegv), GuestPhase::kEnded);
    EXPECT_EQ(end_phase(now, kExited), GuestPhase::kEnded);
  }
  for (const GuestPhase now : {GuestPhase::kRan, GuestPhase::kServing, GuestPhase::kIndependent}) {
    EXPECT_EQ(end_phase(now, SIGKILL), GuestPhase::kEnded);
  }
  // Killed by another, after its worker had let it go and before it could note that.
  EXPECT_EQ(next_phase(GuestPhase::kNeverRan, GuestPhase::kRan), GuestPhase::kEnded);
}

TEST(PhaseTest, TheFirstWordOnHowItEndedCounts) {
  SessionPhase phase;
  phase.enter(GuestPhase::kServing);
  EXPECT_EQ(phase.note_end(kExited), GuestPhase::kEnded);
  EXPECT_EQ(phase.enter(GuestPhase::kEnded), GuestPhase::kEnded);
  EXPECT_EQ(phase.enter(GuestPhase::kIndependent), GuestPhase::kEndedIndependent);
  EXPECT_EQ(phase.enter(GuestPhase::kOver), GuestPhase::kOver);
  EXPECT_EQ(phase.wait_status(), kExited);
  SessionPhase closed;
  closed.enter(GuestPhase::kLeaving);
  closed.enter(GuestPhase::kWentOn);
  EXPECT_EQ(closed.note_end(SIGKILL), GuestPhase::kWentOn);
  SessionPhase home;
  home.become_home();
  home.enter(HomePhase::kServing);
  home.enter(HomePhase::kEnding, kSegv);
  home.enter(HomePhase::kEnded);
  EXPECT_EQ(home.wait_status(), kSegv);
}

TEST(PhaseTest, WorkerAndInitWriteAtOnce) {
  constexpr int kRounds = 2000;
  for (int i = 0; i < kRounds; ++i) {
    SessionPhase phase;
    phase.enter(GuestPhase::kServing);
    std::thread init([&] { phase.note_end(kExited); });
    phase.enter(GuestPhase::kIndependent);
    init.join();
    ASSERT_EQ(phase.guest(), GuestPhase::kEndedIndependent);
    ASSERT_EQ(phase.wait_status(), kExited);
  }
}

// Each phase is a crash point: what is between two writes is as the first of them left it.
TEST(VerdictTest, OfAGuest) {
  struct Row {
    GuestPhase phase;
    SessionVerdict with_cell;
    SessionVerdict without;
  };
  using V = SessionVerdict;
  const std::vector<Row> table = {
      {GuestPhase::kPrepared, V::kNeverRan, V::kNeverRan},
      {GuestPhase::kAwaitsRun, V::kNeverRan, V::kNeverRan},
      {GuestPhase::kTold, V::kNeverRan, V::kNeverRan},
      {GuestPhase::kMarked, V::kWait, V::kKilled},
      {GuestPhase::kKept, V::kWait, V::kKilled},
      {GuestPhase::kRan, V::kWait, V::kKilled},
      {GuestPhase::kServing, V::kWait, V::kKilled},
      {GuestPhase::kIndependent, V::kWait, V::kKilled},
      {GuestPhase::kInDoubt, V::kWait, V::kKilled},
      {GuestPhase::kLeaving, V::kWait, V::kRuns},
      {GuestPhase::kWentOn, V::kRuns, V::kRuns},
      {GuestPhase::kNeverRan, V::kNeverRan, V::kNeverRan},
      {GuestPhase::kEnded, V::kWait, V::kEnded},
      {GuestPhase::kEndedIndependent, V::kWait, V::kEnded},
      {GuestPhase::kOver, V::kEnded, V::kEnded},
  };
  ASSERT_EQ(table.size(), guest_phases().size());
  for (const Row& row : table) {
    EXPECT_EQ(verdict(row.phase, false, true), row.with_cell) << to_string(row.phase);
    EXPECT_EQ(verdict(row.phase, false, false), row.without) << to_string(row.phase);
    EXPECT_EQ(verdict(row.phase, true, true), V::kWait) << to_string(row.phase);
    EXPECT_EQ(verdict(row.phase, true, false), V::kWait) << to_string(row.phase);
    // Who never ran and who ran are not confused, whatever comes next.
    if (row.without == V::kNeverRan) {
      EXPECT_FALSE(has_run(row.phase)) << to_string(row.phase);
    }
  }
}

// From every phase in which a worker can die, the init notes how the process ended.
TEST(VerdictTest, AfterTheInitsNote) {
  for (const GuestPhase now : guest_phases()) {
    for (const int status : {SIGKILL, kSegv, kExited}) {
      const GuestPhase then = next_phase(now, end_phase(now, status));
      const SessionVerdict before = verdict(now, false, false);
      const SessionVerdict after = verdict(then, false, false);
      SCOPED_TRACE(std::string(to_string(now)) + " " + std::to_string(status));
      if (is_starting(now)) {
        EXPECT_EQ(after, status == SIGKILL ? SessionVerdict::kNeverRan : SessionVerdict::kEnded);
      } else if (before == SessionVerdict::kKilled) {
        EXPECT_EQ(after, SessionVerdict::kEnded);
      } else {
        EXPECT_EQ(after, before);
      }
    }
  }
}

TEST(VerdictTest, OfAHome) {
  using V = SessionVerdict;
  const std::map<HomePhase, V> gone = {
      {HomePhase::kOffered, V::kKilled},     {HomePhase::kInDoubt, V::kKilled},
      {HomePhase::kServing, V::kKilled},     {HomePhase::kIndependent, V::kKilled},
      {HomePhase::kStayed, V::kNeverRan},    {HomePhase::kEnding, V::kEnded},
      {HomePhase::kChildrenLeft, V::kEnded}, {HomePhase::kEnded, V::kEnded},
  };
  ASSERT_EQ(gone.size(), home_phases().size());
  for (const auto& [phase, expected] : gone) {
    EXPECT_EQ(verdict(phase, false, false), expected) << to_string(phase);
    EXPECT_EQ(verdict(phase, false, true), phase == HomePhase::kStayed ? V::kNeverRan : V::kWait);
    EXPECT_EQ(verdict(phase, true, false), V::kWait);
    EXPECT_EQ(verdict(phase, true, true), V::kWait);
  }
}

TEST(RowStateTest, OfAGuest) {
  using S = ProcessState;
  const std::map<GuestPhase, std::optional<S>> table = {
      {GuestPhase::kPrepared, S::kMoving},     {GuestPhase::kAwaitsRun, S::kMoving},
      {GuestPhase::kTold, S::kMoving},         {GuestPhase::kMarked, S::kMoving},
      {GuestPhase::kKept, S::kMoving},         {GuestPhase::kRan, S::kMoving},
      {GuestPhase::kServing, S::kRunningHere}, {GuestPhase::kIndependent, S::kRunningHere},
      {GuestPhase::kInDoubt, S::kMoving},      {GuestPhase::kLeaving, S::kAway},
      {GuestPhase::kWentOn, std::nullopt},     {GuestPhase::kNeverRan, std::nullopt},
      {GuestPhase::kEnded, S::kExited},        {GuestPhase::kEndedIndependent, S::kExited},
      {GuestPhase::kOver, std::nullopt},
  };
  ASSERT_EQ(table.size(), guest_phases().size());
  for (const auto& [phase, expected] : table) {
    EXPECT_EQ(row_state(phase, false), expected) << to_string(phase);
    const bool ended = expected == S::kExited;
    EXPECT_EQ(row_state(phase, true), ended ? S::kChildrenLeft : expected) << to_string(phase);
  }
}

TEST(RowStateTest, OfAHome) {
  using S = ProcessState;
  const std::map<HomePhase, std::optional<S>> table = {
      {HomePhase::kOffered, S::kMoving}, {HomePhase::kInDoubt, S::kMoving},
      {HomePhase::kServing, S::kAway},   {HomePhase::kIndependent, S::kDone},
      {HomePhase::kStayed, S::kFailed},  {HomePhase::kEnding, std::nullopt},
      {HomePhase::kEnded, S::kExited},   {HomePhase::kChildrenLeft, S::kChildrenLeft},
  };
  ASSERT_EQ(table.size(), home_phases().size());
  for (const auto& [phase, expected] : table) {
    EXPECT_EQ(row_state(phase), expected) << to_string(phase);
  }
}

}  // namespace
}  // namespace migrate
