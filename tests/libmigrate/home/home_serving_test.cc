// A process runs elsewhere, until it has ended.
#include <signal.h>
#include <unistd.h>

#include <array>

#include "tests/libmigrate/home/home_world.h"

namespace migrate::home_testing {
namespace {

using HomeAway = HomeWorld;

TEST_F(HomeAway, ItEndsAndSaysSoByTheRelay) {
  Client& client = asking(MoveWait::kExit);
  in("Serving", [this] {
    EXPECT_EQ(row()->state, ProcessState::kAway);
    EXPECT_EQ(row()->where, "b:7070");
    call();
    later(500, [this] { exits(5 << 8); });
  });
  in("Ended", [this] {
    EXPECT_EQ(record_->phase(), HomePhase::kEnded);
    doings_.done = true;
    later(100, [this] {
      EXPECT_TRUE(place_.relay->exit_acknowledged());
      place_.relay.reset();
    });
  });
  ASSERT_TRUE(move_away());
  EXPECT_EQ(phases(), "Serving Ended Over");
  EXPECT_EQ(doings_.log, (std::vector<std::string>{"attempt", "settle", "end as 1280 in Ending",
                                                   "stop serving"}));
  EXPECT_EQ(client.exit(), MIGRATE_DONE);
  EXPECT_EQ(client.results().front()["exit_status"], 5 << 8);
  EXPECT_EQ(client.results().front()["state"], "exited");
  EXPECT_EQ(row()->exit_status, 5 << 8);
  EXPECT_FALSE(has_file());
  EXPECT_LT(milliseconds(), 1000);
}

TEST_F(HomeAway, APlaceThatDoesNotHangUpIsWaitedForTwoSeconds) {
  in("Serving", [this] { exits(0); });
  ASSERT_TRUE(move_away());
  EXPECT_GE(milliseconds(), 2000);
  EXPECT_LT(milliseconds(), 2500);
}

TEST_F(HomeAway, TheDaemonThereSaysThatItHasEnded) {
  doings_.wait_status = SIGSEGV;
  Client& client = asking(MoveWait::kExit);
  in("Serving", [this] {
    doings_.fate = Fate::kEnded;
    later(1900, [this] { EXPECT_FALSE(doings_.has("end as 11 in Ending")); });
    later(2100, [this] { EXPECT_TRUE(doings_.has("end as 11 in Ending")); });
  });
  ASSERT_TRUE(move_away());
  EXPECT_EQ(client.exit(), MIGRATE_LOST);
  EXPECT_EQ(client.results().front()["exit_status"], SIGSEGV);
  EXPECT_NE(row()->result.find("lost"), std::string::npos);
}

TEST_F(HomeAway, ItsLastWordsCountMoreThanTheDaemons) {
  doings_.wait_status = SIGKILL;
  Client& client = asking(MoveWait::kExit);
  in("Serving", [this] {
    doings_.fate = Fate::kEnded;
    later(1500, [this] { exits(0); });
  });
  ASSERT_TRUE(move_away());
  EXPECT_EQ(client.exit(), MIGRATE_DONE);
  EXPECT_TRUE(doings_.has("end as 0 in Ending"));
}

TEST_F(HomeAway, WhoWaitsUntilItRunsHearsOfItAtOnce) {
  Client& client = asking(MoveWait::kResumed);
  in("Serving", [&] {
    EXPECT_EQ(client.exit(), MIGRATE_DONE);
    exits(0);
  });
  ASSERT_TRUE(move_away());
  EXPECT_EQ(client.exit(), MIGRATE_DONE);
}

TEST_F(HomeAway, WhenNothingIsOwedItsMemoryIsFreed) {
  Client& client = asking(MoveWait::kDone);
  in("Serving", [&] {
    later(300, [&] {
      EXPECT_EQ(client.exit(), -1);
      EXPECT_EQ(client.events().back(), "progress");
      EXPECT_FALSE(doings_.has("free all"));
      doings_.done = true;
    });
    later(1500, [&] {
      EXPECT_EQ(client.exit(), MIGRATE_DONE);
      EXPECT_EQ(record_->phase(), HomePhase::kIndependent);
      EXPECT_EQ(row()->state, ProcessState::kDone);
      EXPECT_EQ(row()->owed_pages, 0U);
      exits(0);
    });
  });
  ASSERT_TRUE(move_away());
  EXPECT_TRUE(doings_.has("free all"));
  EXPECT_TRUE(doings_.has("end as 0 in Ending"));
}

TEST_F(HomeAway, ADeputyThatIsKilledKillsTheProcess) {
  in("Serving", [this] {
    call();
    later(200, [this] { doings_.state = -1; });
    later(400, [this] {
      EXPECT_EQ(place_.signals, std::vector<int>{SIGKILL});
      EXPECT_TRUE(doings_.has("stop serving"));
      exits(SIGKILL);
    });
  });
  ASSERT_TRUE(move_away());
  EXPECT_FALSE(doings_.has("end as 9 in Ending"));
  EXPECT_EQ(row()->exit_status, SIGKILL);
}

TEST_F(HomeAway, ADeputyThatIsKilledWhenNothingIsOwed) {
  doings_.done = true;
  in("Serving", [this] {
    call();
    EXPECT_EQ(record_->phase(), HomePhase::kIndependent);
    later(1200, [this] { doings_.state = -1; });
    later(3500, [this] {
      EXPECT_EQ(place_.signals, std::vector<int>{SIGKILL});
      exits(SIGKILL);
    });
  });
  ASSERT_TRUE(move_away());
  EXPECT_EQ(row()->exit_status, SIGKILL);
}

TEST_F(HomeAway, SignalsOfTheDeputyGoToTheProcess) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe(ends.data()), 0);
  const UniqueFd reader(ends[0]);
  const UniqueFd writer(ends[1]);
  doings_.signal_pipe = reader.get();
  const auto leader_gets = [&](int signal, pid_t from) {
    siginfo_t information{};
    information.si_signo = signal;
    information.si_code = SI_USER;
    information.si_pid = from;
    ASSERT_EQ(::write(writer.get(), &information, kSiginfoBytes),
              static_cast<ssize_t>(kSiginfoBytes));
  };
  in("Serving", [&] {
    call();
    leader_gets(SIGUSR1, 1);
    leader_gets(SIGCONT, ::getpid());  // Which this worker sent itself.
    leader_gets(SIGTERM, 1);
    later(100, [this] { doings_.state = SIGTSTP; });
    later(119, [this] { doings_.state = 0; });
    later(300, [this] { exits(SIGTERM); });
  });
  ASSERT_TRUE(move_away());
  ASSERT_GE(place_.signals.size(), 3U);
  EXPECT_EQ(place_.signals[0], SIGUSR1);
  EXPECT_EQ(place_.signals[1], SIGTERM);
  EXPECT_EQ(place_.signals[2], SIGTSTP);
}

TEST_F(HomeAway, TheDeputyStopsAndGoesOnWithTheProcess) {
  in("Serving", [this] {
    call();
    later(100, [this] { place_.relay->report_job_state(SIGTSTP); });
    later(200, [this] { place_.relay->report_job_state(0); });
    later(300, [this] { exits(0); });
  });
  ASSERT_TRUE(move_away());
  EXPECT_TRUE(doings_.has("send " + std::to_string(SIGSTOP)));
  EXPECT_TRUE(doings_.has("send " + std::to_string(SIGCONT)));
}

TEST_F(HomeAway, ItMovesOnAndTheRowSaysWhereTo) {
  in("Serving", [this] {
    call();
    later(100, [this] { place_.relay->report_location("tcp://c:7070", "22"); });
    later(300, [this] {
      EXPECT_EQ(row()->where, "tcp://c:7070");
      EXPECT_EQ(record_->text().where_session(), "22");
      exits(0);
    });
  });
  ASSERT_TRUE(move_away());
}

TEST_F(HomeAway, AStreamThatItClosesIsClosedHere) {
  const UniqueFd home_end = add_stream(4);
  in("Serving", [this] {
    call();
    later(100, [this] { place_.ends.clear(); });
    later(1000, [this] {
      EXPECT_TRUE(doings_.has("close stream 4"));
      exits(0);
    });
  });
  ASSERT_TRUE(move_away());
}

TEST_F(HomeAway, WhatIsWrittenAtHomeComesToIt) {
  const UniqueFd home_end = add_stream(4);
  in("Serving", [&] {
    call();
    ASSERT_EQ(::write(home_end.get(), "word", 4), 4);
    later(500, [this] {
      std::array<char, 8> text{};
      EXPECT_EQ(::read(place_.ends.front().process_end.get(), text.data(), text.size()), 4);
      EXPECT_STREQ(text.data(), "word");
      exits(0);
    });
  });
  ASSERT_TRUE(move_away());
}

TEST_F(HomeAway, ItIsGivenUpIfItsPlaceDoesNotAnswer) {
  Client& client = asking(MoveWait::kExit);
  Client* operators = nullptr;
  in("Serving", [&] { operators = &resolve("give-up"); });
  ASSERT_TRUE(move_away());
  EXPECT_EQ(operators->exit(), MIGRATE_DONE);
  EXPECT_EQ(client.exit(), MIGRATE_LOST);
  EXPECT_TRUE(doings_.has("end as 9 in Ending"));
}

TEST_F(HomeAway, ItIsNotGivenUpIfItsPlaceAnswers) {
  answers_ = true;
  Client* operators = nullptr;
  in("Serving", [&] {
    operators = &resolve("give-up");
    later(100, [this] { exits(0); });
  });
  ASSERT_TRUE(move_away());
  EXPECT_EQ(operators->exit(), MIGRATE_REFUSED);
  EXPECT_NE(operators->error().find("which answers"), std::string::npos);
  EXPECT_EQ(asked_.front()["host"], "tcp://b:7070");
  EXPECT_TRUE(doings_.has("end as 0 in Ending"));
}

TEST_F(HomeAway, ClientsWhoWaitForTheEndHearOfIt) {
  answers_ = true;
  answer_ = {{"event", "result"}, {"exit", 0}, {"destination", "c:7070"}, {"id", "22"}};
  Client* moves = nullptr;
  in("Serving", [&] {
    moves = &ask({{"command", "move"}, {"wait", "exit"}});
    later(200, [&] {
      EXPECT_EQ(moves->exit(), -1);
      EXPECT_EQ(record_->where().host, "c:7070");
      exits(7 << 8);
    });
  });
  ASSERT_TRUE(move_away());
  EXPECT_EQ(moves->exit(), MIGRATE_DONE);
  EXPECT_EQ(moves->results().front()["exit_status"], 7 << 8);
}

TEST_F(HomeAway, ClientsWhoWaitForAPlaceHearThatTheProcessHasEnded) {
  answers_ = true;
  answer_ = nullptr;
  Client* asks = nullptr;
  in("Serving", [&] {
    asks = &ask({{"command", "check"}});
    later(200, [this] { exits(0); });
  });
  ASSERT_TRUE(move_away());
  EXPECT_EQ(asks->exit(), MIGRATE_ERROR);
  EXPECT_NE(asks->error().find("ended meanwhile"), std::string::npos);
}

TEST_F(HomeAway, ADeputyThatCannotSettleServesAllTheSame) {
  doings_.can_settle = false;
  in("Serving", [this] { exits(0); });
  ASSERT_TRUE(move_away());
  EXPECT_EQ(phases(), "Serving Ended Over");
}

}  // namespace
}  // namespace migrate::home_testing
