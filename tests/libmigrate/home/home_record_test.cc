#include "libmigrate/home/home_record.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

namespace migrate {
namespace {

class HomeRecordTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = "/dev/shm/recordXXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
    ASSERT_TRUE(SessionFile::prepare(directory_));
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  Result<HomeRecord> create() {
    MoveRequest request;
    request.pid = ::getpid();
    request.uid = 12;
    request.wait = MoveWait::kDone;
    return HomeRecord::create(directory_, request);
  }

  /// The file of `process`, as a new worker finds it when this one is dead.
  SessionFile file_of(const SessionId& process) {
    SessionFile file = SessionFile::open(directory_, home_session_name(to_hex(process))).value();
    file.mark().worker = 0;
    return file;
  }

  ProcessRecord row() { return Registry::open(directory_).value().list().value().at(0); }

  std::string directory_;
};

TEST_F(HomeRecordTest, BeginsWithTheRequest) {
  const HomeRecord record = create().value();
  EXPECT_EQ(record.pid(), ::getpid());
  EXPECT_EQ(record.command(), command_line(::getpid()));
  EXPECT_EQ(record.token().size(), 32U);
  EXPECT_EQ(record.phase(), HomePhase::kOffered);
  EXPECT_EQ(record.identity().start, start_time(::getpid()));
  EXPECT_TRUE(Registry::open(directory_).value().list().value().empty());  // Not before enter().
}

TEST_F(HomeRecordTest, APhaseIsInTheRow) {
  HomeRecord record = create().value();
  record.enter(HomePhase::kOffered, {.owed_pages = 0, .result = "{}"});
  EXPECT_EQ(row().state, ProcessState::kMoving);
  EXPECT_EQ(row().result, "");  // Of a move that is under way.
  EXPECT_EQ(row().uid, 12U);
  EXPECT_EQ(row().mode, "lazy");
  record.where() = {"b:7070", "11"};
  record.enter(HomePhase::kServing, {.owed_pages = 5, .result = R"({"id":"11"})"});
  EXPECT_EQ(row().state, ProcessState::kAway);
  EXPECT_EQ(row().where, "b:7070");
  EXPECT_EQ(row().session, "11");
  EXPECT_EQ(row().owed_pages, 5U);
  EXPECT_EQ(row().result, R"({"id":"11"})");
}

TEST_F(HomeRecordTest, TheRowHearsOfAnEndWhenTheDeputyHasEnded) {
  HomeRecord record = create().value();
  record.enter(HomePhase::kServing);
  record.enter(HomePhase::kEnding, {}, 3);
  EXPECT_EQ(row().state, ProcessState::kAway);
  record.enter(HomePhase::kEnded);
  EXPECT_EQ(row().state, ProcessState::kExited);
  EXPECT_EQ(row().exit_status, 3);  // As was noted first.
}

TEST_F(HomeRecordTest, OfChildrenThatAreLeftTheRowHasTheEndOfTheProcess) {
  HomeRecord record = create().value();
  record.enter(HomePhase::kEnding, {}, 4);
  record.enter(HomePhase::kChildrenLeft, {}, 4);
  EXPECT_EQ(row().state, ProcessState::kChildrenLeft);
  EXPECT_EQ(row().exit_status, 4);
}

TEST_F(HomeRecordTest, ANewWorkerFindsWhatWasKept) {
  SessionId process{};
  {
    HomeRecord record = create().value();
    process = record.process();
    record.note_area(0x7000);
    record.where() = {"c:7070", "22"};
    record.text().mutable_outgoing()->set_mode("eager");
    record.enter(HomePhase::kServing);
    ASSERT_TRUE(record.save());
  }
  SessionFile file = file_of(process);
  HomeRecord record = HomeRecord::adopt(directory_, file, process).value();
  EXPECT_EQ(record.pid(), ::getpid());
  EXPECT_EQ(record.area(), 0x7000U);
  EXPECT_EQ(record.phase(), HomePhase::kServing);
  EXPECT_EQ(record.where().host, "c:7070");
  EXPECT_EQ(record.where().session, "22");
  record.write_row({});
  EXPECT_EQ(row().mode, "eager");
}

TEST_F(HomeRecordTest, WhatCannotBeReadIsLeftToTheCaller) {
  SessionId process{};
  {
    HomeRecord record = create().value();
    process = record.process();
  }
  SessionFile file = file_of(process);
  ASSERT_TRUE(file.save("\xff\xff no message"));
  const auto record = HomeRecord::adopt(directory_, file, process);
  ASSERT_FALSE(record);
  EXPECT_EQ(record.error().code, ErrorCode::kCorrupt);
  file.set_aside();
  EXPECT_TRUE(SessionFile::is_damaged(directory_, home_session_name(to_hex(process))));
}

TEST_F(HomeRecordTest, AReleasedPidIsAnotherWorkers) {
  HomeRecord record = create().value();
  record.release_pid();
  EXPECT_TRUE(create());
}

TEST_F(HomeRecordTest, ACommandLineIsOneLine) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::execlp("sleep", "sleep", "9", nullptr);
    ::_exit(1);
  }
  std::string line;
  for (int i = 0; i < 2000 && line != "sleep 9"; ++i) {
    ::usleep(1000);
    line = command_line(child);
  }
  EXPECT_EQ(line, "sleep 9");
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  EXPECT_EQ(command_line(child), "");
}

}  // namespace
}  // namespace migrate
