#include "libmigrate/state/process_row.h"

#include <gtest/gtest.h>
#include <sqlite3.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

namespace migrate {
namespace {

class ProcessRowTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "rowXXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  ProcessRow open() { return ProcessRow::open(directory_, "ab12", ProcessRole::kHome).value(); }

  std::vector<ProcessRecord> rows() { return Registry::open(directory_).value().list().value(); }

  static ProcessRecord away() {
    ProcessRecord record;
    record.pid = 17;
    record.state = ProcessState::kAway;
    record.command = "xz";
    return record;
  }

  // Writes the row in another process, as another worker.
  void write_elsewhere() {
    const pid_t child = fork();
    if (child == 0) {
      ProcessRecord record = away();
      record.pid = 18;
      open().write(record);
      _exit(0);
    }
    int status = -1;
    waitpid(child, &status, 0);
    ASSERT_EQ(status, 0);
  }

  std::string directory_;
};

TEST_F(ProcessRowTest, ChangesKeepTheRest) {
  ProcessRow row = open();
  row.write(away());
  row.set_waiting("pages", 3'000'000);
  row.set_state(ProcessState::kDone, 0);
  row.set_result("{}");
  row.set_exit(9);
  const auto found = rows();
  ASSERT_EQ(found.size(), 1U);
  EXPECT_EQ(found.front().command, "xz");
  EXPECT_EQ(found.front().state, ProcessState::kExited);
  EXPECT_EQ(found.front().exit_status, 9);
  EXPECT_EQ(found.front().result, "{}");
  EXPECT_EQ(found.front().waits_for, "pages");
  EXPECT_LE(found.front().waits_since_us, found.front().created_us - 2'000'000);
  row.remove();
  EXPECT_TRUE(rows().empty());
}

TEST_F(ProcessRowTest, ProgressIsWrittenNowAndThenAndItsEndAtOnce) {
  ProcessRow row = open();
  row.write(away());
  const auto owed = [this] { return rows().at(0).owed_pages; };
  row.set_progress(ProcessState::kAway, 900, {}, "{}");
  EXPECT_EQ(owed(), 900U);
  for (std::uint64_t left = 800; left > 700; --left) {
    row.set_progress(ProcessState::kAway, left, {}, "{}");
  }
  EXPECT_GT(owed(), 701U);
  row.set_waiting("pages", 0);
  EXPECT_EQ(owed(), 701U) << "whatever is written brings the latest along";
  row.set_progress(ProcessState::kRunningHere, 600, "hostA", "{}");
  EXPECT_EQ(owed(), 600U);
  row.set_progress(ProcessState::kRunningHere, 0, "hostA", R"({"a":1})");
  EXPECT_EQ(owed(), 0U);
  EXPECT_EQ(rows().at(0).result, R"({"a":1})");
}

TEST_F(ProcessRowTest, ARowThatWasLostIsWrittenAgain) {
  ProcessRow row = open();
  row.write(away());
  std::filesystem::remove_all(directory_);
  row.set_exit(9);  // Nowhere to be seen.
  std::filesystem::create_directory(directory_);
  row.refresh();
  const auto found = rows();
  ASSERT_EQ(found.size(), 1U);
  EXPECT_EQ(found.front().command, "xz");
  EXPECT_EQ(found.front().exit_status, 9);
}

TEST_F(ProcessRowTest, ADamagedRegistryIsFilledAgainOnceItIsMovedAside) {
  ProcessRow row = open();
  row.write(away());
  for (const char* suffix : {"-wal", "-shm"}) {
    std::filesystem::remove(Registry::path(directory_) + suffix);
  }
  std::ofstream(Registry::path(directory_)) << std::string(8192, 'x');
  row.set_state(ProcessState::kDone);
  ASSERT_TRUE(Registry::open_or_repair(directory_));
  row.refresh();
  const auto found = rows();
  ASSERT_EQ(found.size(), 1U);
  EXPECT_EQ(found.front().state, ProcessState::kDone);
}

TEST_F(ProcessRowTest, WhoTakesOverWhileItIsLockedDoesSoLater) {
  write_elsewhere();
  ProcessRow row = open();
  sqlite3* other = nullptr;
  ASSERT_EQ(sqlite3_open(Registry::path(directory_).c_str(), &other), SQLITE_OK);
  ASSERT_EQ(sqlite3_exec(other, "BEGIN IMMEDIATE", nullptr, nullptr, nullptr), SQLITE_OK);
  row.set_exit(9);
  sqlite3_close(other);
  EXPECT_EQ(rows().front().state, ProcessState::kAway);
  row.refresh();
  EXPECT_EQ(rows().front().state, ProcessState::kExited);
  EXPECT_EQ(rows().front().worker, getpid());
  row.remove();
  EXPECT_TRUE(rows().empty());
}

TEST_F(ProcessRowTest, ANewerWorkersRowIsLeftAlone) {
  ProcessRow row = open();
  row.write(away());
  write_elsewhere();
  row.set_exit(9);
  row.remove();
  const auto found = rows();
  ASSERT_EQ(found.size(), 1U);
  EXPECT_EQ(found.front().pid, 18);
  EXPECT_EQ(found.front().state, ProcessState::kAway);
}

TEST_F(ProcessRowTest, WhoTakesOverBeginsWithWhatIsThere) {
  write_elsewhere();
  ProcessRow row = open();
  row.set_exit(9);
  const auto found = rows();
  ASSERT_EQ(found.size(), 1U);
  EXPECT_EQ(found.front().pid, 18);
  EXPECT_EQ(found.front().worker, getpid());
}

}  // namespace
}  // namespace migrate
