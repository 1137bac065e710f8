#include "libmigrate/state/registry.h"

#include <gtest/gtest.h>
#include <sqlite3.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "libmigrate/host/mailbox_path.h"
#include "transport/handoff.h"

namespace migrate {
namespace {

class RegistryTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "registryXXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  Registry registry() { return Registry::open(directory_).value(); }

  static ProcessRecord record(const std::string& process, pid_t pid) {
    ProcessRecord made;
    made.process = process;
    made.pid = pid;
    made.where = "tcp://hostB:7070";
    made.session = "5e55";
    made.mode = "lazy";
    made.state = ProcessState::kAway;
    made.owed_pages = 77;
    made.uid = 1000;
    made.command = "xz -9 'a b'";
    return made;
  }

  std::string directory_;
};

TEST_F(RegistryTest, KeepsEveryFieldAcrossReopening) {
  ASSERT_TRUE(registry().upsert(record("ab12", 17)));
  const auto found = registry().find_process("ab").value();
  ASSERT_EQ(found.size(), 1U);
  const ProcessRecord& row = found.front();
  EXPECT_EQ(row.process, "ab12");
  EXPECT_EQ(row.role, ProcessRole::kHome);
  EXPECT_EQ(row.pid, 17);
  EXPECT_EQ(row.where, "tcp://hostB:7070");
  EXPECT_EQ(row.session, "5e55");
  EXPECT_EQ(row.mode, "lazy");
  EXPECT_EQ(row.state, ProcessState::kAway);
  EXPECT_EQ(row.owed_pages, 77U);
  EXPECT_EQ(row.uid, 1000U);
  EXPECT_EQ(row.command, "xz -9 'a b'");
  EXPECT_EQ(row.worker, getpid());
  EXPECT_EQ(row.mailbox_name(), "ab12");
  EXPECT_FALSE(row.exit_status.has_value());
  EXPECT_GT(row.created_us, 0);
}

TEST_F(RegistryTest, UpsertReplacesButKeepsTheTimeOfCreation) {
  Registry rows = registry();
  ASSERT_TRUE(rows.upsert(record("ab12", 17)));
  const auto first = rows.find_process("ab12").value().front();
  ProcessRecord second = record("ab12", 18);
  second.exit_status = 9;
  ASSERT_TRUE(rows.upsert(second));
  const auto all = rows.list().value();
  ASSERT_EQ(all.size(), 1U);
  EXPECT_EQ(all.front().pid, 18);
  EXPECT_EQ(all.front().exit_status, 9);
  EXPECT_EQ(all.front().created_us, first.created_us);
}

TEST_F(RegistryTest, ARowOfAnotherWorkerIsLeftAlone) {
  Registry rows = registry();
  ProcessRecord other = record("ab12", 17);
  other.worker = getpid() + 1;
  ASSERT_TRUE(rows.upsert(other));
  ProcessRecord guest = record("ab12", 18);
  guest.role = ProcessRole::kGuest;
  EXPECT_TRUE(rows.upsert_own(guest).value());  // There was none.
  guest.state = ProcessState::kExited;
  EXPECT_TRUE(rows.upsert_own(guest).value());
  EXPECT_FALSE(rows.upsert_own(record("ab12", 19)).value());
  ASSERT_TRUE(rows.remove("ab12", ProcessRole::kHome, getpid()));
  EXPECT_EQ(rows.find_pid(17).value()->worker, getpid() + 1);
  const std::vector<ProcessRecord> found = rows.find_process("ab12").value();
  ASSERT_EQ(found.size(), 2U);
  for (const ProcessRecord& row : found) {
    EXPECT_EQ(row.state == ProcessState::kExited, row.role == ProcessRole::kGuest);
  }
  ASSERT_TRUE(rows.remove("ab12", ProcessRole::kHome));
  EXPECT_EQ(rows.list().value().size(), 1U);
}

TEST_F(RegistryTest, ALaterProcessWithTheWorkersPidIsNotTheWorker) {
  Registry rows = registry();
  ASSERT_TRUE(rows.upsert(record("ab12", 17)));
  ProcessRecord row = rows.find_pid(17).value().value();
  EXPECT_TRUE(row.has_worker());
  ++row.worker_start;
  EXPECT_FALSE(row.has_worker());
  row.worker_start = 0;  // As a worker of an earlier version wrote it.
  EXPECT_TRUE(row.has_worker());
}

TEST_F(RegistryTest, FindsPidsOfLiveRowsOnly) {
  Registry rows = registry();
  ASSERT_TRUE(rows.upsert(record("ab12", 17)));
  EXPECT_TRUE(rows.find_pid(17).value().has_value());
  EXPECT_FALSE(rows.find_pid(18).value().has_value());
  ProcessRecord ended = record("ab12", 17);
  ended.state = ProcessState::kExited;
  ASSERT_TRUE(rows.upsert(ended));
  EXPECT_FALSE(rows.find_pid(17).value().has_value());
  EXPECT_TRUE(rows.list(true).value().empty());
}

TEST_F(RegistryTest, ThePidIsFreeWhereOnlyChildrenAreLeft) {
  Registry rows = registry();
  ProcessRecord ended = record("ab12", 17);
  ended.state = ProcessState::kChildrenLeft;
  ASSERT_TRUE(rows.upsert(ended));
  EXPECT_FALSE(rows.find_pid(17).value().has_value());
  ASSERT_EQ(rows.list(true).value().size(), 1U);
  EXPECT_EQ(to_string(rows.list(true).value().front().state), "children-left");
}

TEST_F(RegistryTest, PrefixMustBeHexadecimalAndUnique) {
  Registry rows = registry();
  ASSERT_TRUE(rows.upsert(record("ab12", 17)));
  ASSERT_TRUE(rows.upsert(record("ab1234", 18)));
  EXPECT_EQ(rows.find_process("ab12").value().front().pid, 17);  // exact beats prefix
  EXPECT_EQ(rows.find_process("ab123").value().front().pid, 18);
  EXPECT_TRUE(rows.find_process("cd").value().empty());
  for (const char* wrong : {"ab", "", "%", "AB12", "a'b"}) {
    EXPECT_EQ(rows.find_process(wrong).error().code, ErrorCode::kInvalid) << wrong;
  }
}

TEST_F(RegistryTest, ManyProcessesWriteAtOnce) {
  constexpr int kWriters = 8;
  constexpr int kWrites = 50;
  for (int writer = 0; writer < kWriters; ++writer) {
    if (fork() == 0) {
      Result<Registry> rows = Registry::open(directory_);
      Result<void> good = rows ? Result<void>() : fail(rows.error());
      const std::string id = "a" + std::to_string(writer);
      for (int i = 0; good && i < kWrites; ++i) {
        good = rows->upsert(record(id, i + 1));
      }
      EXPECT_TRUE(good) << good.error().message();
      _exit(good ? 0 : 1);
    }
  }
  int status = 0;
  while (wait(&status) > 0) {
    EXPECT_EQ(status, 0);
  }
  EXPECT_EQ(registry().list().value().size(), static_cast<std::size_t>(kWriters));
}

TEST_F(RegistryTest, ADamagedFileIsMovedAside) {
  std::ofstream(directory_ + "/registry.sqlite") << std::string(8192, 'x');
  const Result<Registry> opened = Registry::open(directory_);
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code, ErrorCode::kCorrupt);
  Result<Registry> repaired = Registry::open_or_repair(directory_);
  ASSERT_TRUE(repaired) << repaired.error().message();
  ASSERT_TRUE(repaired->upsert(record("ab12", 17)));
  bool aside = false;
  for (const auto& entry : std::filesystem::directory_iterator(directory_)) {
    aside = aside || entry.path().filename().string().starts_with("registry.sqlite.damaged-");
  }
  EXPECT_TRUE(aside);
}

TEST_F(RegistryTest, DamageInsideTheFileIsFoundToo) {
  {
    Registry rows = registry();
    for (int i = 0; i < 200; ++i) {
      ASSERT_TRUE(rows.upsert(record("ab" + std::to_string(1000 + i), i + 1)));
    }
  }
  std::fstream file(directory_ + "/registry.sqlite",
                    std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(4096 + 100);
  file << std::string(12000, '\xff');
  file.close();
  Result<Registry> repaired = Registry::open_or_repair(directory_);
  ASSERT_TRUE(repaired) << repaired.error().message();
  EXPECT_TRUE(repaired->upsert(record("ab12", 17)));
}

TEST_F(RegistryTest, RowsOfAnEarlierBootAreLost) {
  {
    Registry rows = registry();
    ASSERT_TRUE(rows.upsert(record("ab12", 17)));
    ASSERT_TRUE(rows.upsert(record("cd34", 18)));
  }
  sqlite3* raw = nullptr;
  ASSERT_EQ(sqlite3_open((directory_ + "/registry.sqlite").c_str(), &raw), SQLITE_OK);
  ASSERT_EQ(sqlite3_exec(raw, "UPDATE processes SET boot='old' WHERE process='ab12'", nullptr,
                         nullptr, nullptr),
            SQLITE_OK);
  sqlite3_close(raw);
  Result<Registry> rows = Registry::open_or_repair(directory_);
  ASSERT_TRUE(rows);
  EXPECT_EQ(rows->find_process("ab12").value().front().state, ProcessState::kLost);
  EXPECT_EQ(rows->find_process("cd34").value().front().state, ProcessState::kAway);
}

TEST_F(RegistryTest, MailboxPassesMessageAndDescriptor) {
  const std::string text = "{\"command\":\"move\"}";
  const auto message = std::as_bytes(std::span(text));
  EXPECT_FALSE(hand_to_worker(directory_, "ab12", 0, message).value());
  std::filesystem::create_directory(mailbox_directory(directory_));
  EXPECT_FALSE(hand_to_worker(directory_, "ab12", 0, message).value());
  {
    Result<UnixListener> box = UnixListener::create(mailbox_path(directory_, "ab12"), 0600);
    ASSERT_TRUE(box) << box.error().message();
    ASSERT_TRUE(hand_to_worker(directory_, "ab12", 0, message).value());
    const UniqueFd connection = box->accept(1000).value();
    const Handoff received = receive_descriptor(connection.get(), 1000).value();
    EXPECT_TRUE(received.fd.valid());
    EXPECT_TRUE(
        std::equal(received.bytes.begin(), received.bytes.end(), message.begin(), message.end()));
  }
  EXPECT_FALSE(hand_to_worker(directory_, "ab12", 0, message).value());
  EXPECT_EQ(hand_to_worker(directory_, "../x", 0, message).error().code, ErrorCode::kInvalid);
}

/// Runs SQL on the database as something else than this program would.
void execute(const std::string& directory, const char* sql) {
  sqlite3* raw = nullptr;
  ASSERT_EQ(sqlite3_open(Registry::path(directory).c_str(), &raw), SQLITE_OK);
  ASSERT_EQ(sqlite3_exec(raw, sql, nullptr, nullptr, nullptr), SQLITE_OK) << sqlite3_errmsg(raw);
  sqlite3_close(raw);
}

TEST_F(RegistryTest, ADatabaseOfAnyEarlierVersionIsReadOn) {
  execute(directory_,
          "CREATE TABLE processes (process TEXT NOT NULL, role INTEGER NOT NULL,"
          " pid INTEGER NOT NULL, home TEXT NOT NULL, place TEXT NOT NULL, session TEXT NOT NULL,"
          " mode TEXT NOT NULL, state INTEGER NOT NULL, exit_status INTEGER,"
          " owed_pages INTEGER NOT NULL, created_us INTEGER NOT NULL,"
          " updated_us INTEGER NOT NULL, uid INTEGER NOT NULL, command TEXT NOT NULL,"
          " result TEXT NOT NULL, worker INTEGER NOT NULL, mailbox TEXT NOT NULL,"
          " boot TEXT NOT NULL, PRIMARY KEY (process, role));"
          "INSERT INTO processes VALUES ('ab12',1,17,'h','w','5e','lazy',2,NULL,7,1,2,1000,'xz',"
          "'{}',9,'','boot'); PRAGMA user_version = 1;");
  const std::string drop = "ALTER TABLE processes DROP COLUMN ";
  for (int version = 1; version <= 4; ++version) {
    if (version >= 2) {  // The first reading has made it one of today.
      const std::string missing = drop + "identity;" + drop + "moves;" +
                                  (version <= 3 ? drop + "owed_by;" : "") +
                                  (version == 2 ? drop + "worker_start;" : "");
      const std::string number = "PRAGMA user_version = " + std::to_string(version);
      execute(directory_, (missing + number).c_str());
    }
    ProcessRecord row = registry().find_process("ab12").value().at(0);
    EXPECT_EQ(row.role, ProcessRole::kGuest);
    EXPECT_EQ(row.owed_pages, 7U);
    EXPECT_EQ(row.command, "xz");
    EXPECT_TRUE(row.waits_for.empty() && row.owed_by.empty() && row.identity.empty());
    EXPECT_EQ(row.moves, 0U);
    row.moves = 3;
    EXPECT_TRUE(registry().upsert(row));
    EXPECT_EQ(registry().find_process("ab12").value().at(0).moves, 3U) << version;
  }
}

TEST_F(RegistryTest, ADatabaseOfALaterVersionIsLeftAlone) {
  ASSERT_TRUE(registry().upsert(record("ab12", 17)));
  execute(directory_, "PRAGMA user_version = 6;");
  EXPECT_EQ(Registry::open(directory_).error().code, ErrorCode::kUnsupported);
  EXPECT_EQ(Registry::open_or_repair(directory_).error().code, ErrorCode::kUnsupported);
  execute(directory_, "PRAGMA user_version = 5;");
  EXPECT_EQ(registry().list().value().size(), 1U);
}

TEST_F(RegistryTest, NumbersThatNobodyWritesAreKeptInBounds) {
  ASSERT_TRUE(registry().upsert(record("ab12", 17)));
  execute(directory_, "UPDATE processes SET role=9, state=99");
  const ProcessRecord row = registry().list().value().at(0);
  EXPECT_EQ(row.role, ProcessRole::kGuest);
  EXPECT_EQ(row.state, ProcessState::kChildrenLeft);
  EXPECT_EQ(to_string(static_cast<ProcessState>(99)), "children-left");
}

TEST_F(RegistryTest, WhatMayNotBeSeenIsAsIfItWereNotThere) {
  Registry rows = registry();
  ASSERT_TRUE(rows.upsert(record("ab12", 17)));
  ProcessRecord other = record("ab34", 18);
  other.uid = 2000;
  ASSERT_TRUE(rows.upsert(other));
  const auto seen =
      rows.find_process("ab", [](const ProcessRecord& row) { return row.uid == 1000; });
  ASSERT_EQ(seen.value().size(), 1U);  // No word of the other, that begins like it.
  EXPECT_EQ(seen.value().front().pid, 17);
  EXPECT_EQ(rows.find_process("ab").error().code, ErrorCode::kInvalid);
}

TEST_F(RegistryTest, ALockThatIsHeldForLongIsToBeTriedAgain) {
  Registry rows = registry();
  sqlite3* other = nullptr;
  ASSERT_EQ(sqlite3_open(Registry::path(directory_).c_str(), &other), SQLITE_OK);
  ASSERT_EQ(sqlite3_exec(other, "BEGIN IMMEDIATE", nullptr, nullptr, nullptr), SQLITE_OK);
  rows.set_patience(1);
  EXPECT_EQ(rows.upsert(record("ab12", 17)).error().code, ErrorCode::kRetry);
  EXPECT_TRUE(rows.list().value().empty());  // Who only reads does not wait.
  sqlite3_close(other);
  EXPECT_TRUE(rows.upsert(record("ab12", 17)));
}

}  // namespace
}  // namespace migrate
