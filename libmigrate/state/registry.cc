#include "libmigrate/state/registry.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <utility>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/process_identity.h"
#include "libmigrate/state/database.h"
#include "libmigrate/state/session_file.h"

namespace migrate {
namespace {

constexpr int kSchemaVersion = 5;

constexpr const char* kSchema =
    "CREATE TABLE IF NOT EXISTS processes ("
    " process TEXT NOT NULL, role INTEGER NOT NULL, pid INTEGER NOT NULL, home TEXT NOT NULL,"
    " place TEXT NOT NULL, session TEXT NOT NULL, mode TEXT NOT NULL, state INTEGER NOT NULL,"
    " exit_status INTEGER, owed_pages INTEGER NOT NULL, created_us INTEGER NOT NULL,"
    " updated_us INTEGER NOT NULL, uid INTEGER NOT NULL, command TEXT NOT NULL,"
    " result TEXT NOT NULL, worker INTEGER NOT NULL, mailbox TEXT NOT NULL,"
    " boot TEXT NOT NULL, waits_for TEXT NOT NULL DEFAULT '',"
    " waits_since_us INTEGER NOT NULL DEFAULT 0, worker_start INTEGER NOT NULL DEFAULT 0,"
    " owed_by TEXT NOT NULL DEFAULT '', identity TEXT NOT NULL DEFAULT '',"
    " moves INTEGER NOT NULL DEFAULT 0,"
    " PRIMARY KEY (process, role));"
    "CREATE INDEX IF NOT EXISTS processes_by_pid ON processes (pid);"
    "PRAGMA user_version = 5;";

constexpr const char* kUpgradeFrom1 =
    "BEGIN IMMEDIATE;"
    "ALTER TABLE processes ADD COLUMN waits_for TEXT NOT NULL DEFAULT '';"
    "ALTER TABLE processes ADD COLUMN waits_since_us INTEGER NOT NULL DEFAULT 0;"
    "PRAGMA user_version = 2;"
    "COMMIT;";

constexpr const char* kUpgradeFrom2 =
    "BEGIN IMMEDIATE;"
    "ALTER TABLE processes ADD COLUMN worker_start INTEGER NOT NULL DEFAULT 0;"
    "PRAGMA user_version = 3;"
    "COMMIT;";

constexpr const char* kUpgradeFrom3 =
    "BEGIN IMMEDIATE;"
    "ALTER TABLE processes ADD COLUMN owed_by TEXT NOT NULL DEFAULT '';"
    "PRAGMA user_version = 4;"
    "COMMIT;";

constexpr const char* kUpgradeFrom4 =
    "BEGIN IMMEDIATE;"
    "ALTER TABLE processes ADD COLUMN identity TEXT NOT NULL DEFAULT '';"
    "ALTER TABLE processes ADD COLUMN moves INTEGER NOT NULL DEFAULT 0;"
    "PRAGMA user_version = 5;"
    "COMMIT;";

constexpr const char* kColumns =
    "SELECT process, role, pid, home, place, session, mode, state, exit_status, owed_pages,"
    " created_us, updated_us, uid, command, result, worker, mailbox, waits_for, waits_since_us,"
    " worker_start, owed_by, identity, moves FROM processes ";

constexpr const char* kUpsert =
    "INSERT INTO processes (process, role, pid, home, place, session, mode, state, exit_status,"
    " owed_pages, created_us, updated_us, uid, command, result, worker, mailbox, boot, waits_for,"
    " waits_since_us, worker_start, owed_by, identity, moves)"
    " VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17,?18,?19,?20,?21,?22,"
    " ?23,?24)"
    " ON CONFLICT (process, role) DO UPDATE SET pid=?3, home=?4, place=?5, session=?6, mode=?7,"
    " state=?8, exit_status=?9, owed_pages=?10, updated_us=?12, uid=?13, command=?14, result=?15,"
    " worker=?16, mailbox=?17, boot=?18, waits_for=?19, waits_since_us=?20,"
    " worker_start=?21, owed_by=?22, identity=?23, moves=?24";

constexpr std::array<std::string_view, 2> kRoleNames = {"home", "resident"};
constexpr std::array<std::string_view, 8> kStateNames = {
    "moving", "running-here", "away", "done", "exited", "failed", "lost", "children-left"};

}  // namespace

std::string_view to_string(ProcessRole role) {
  return kRoleNames[std::min<std::size_t>(static_cast<std::size_t>(role), kRoleNames.size() - 1)];
}

std::string_view to_string(ProcessState state) {
  return kStateNames[std::min<std::size_t>(static_cast<std::size_t>(state),
                                           kStateNames.size() - 1)];
}

bool is_live(ProcessState state) {
  return state <= ProcessState::kDone || state == ProcessState::kChildrenLeft;
}

namespace {

/// Makes the tables, or adds what they lack since an older version.
Result<void> bring_up_to_date(Database& database) {
  int version = 0;
  {
    Statement query(database, "PRAGMA user_version");
    MIGRATE_TRY(query.step());
    version = static_cast<int>(query.number(0));
  }
  if (version > kSchemaVersion) {
    return fail(make_error(ErrorCode::kUnsupported, "open the registry",
                           database.path() + ": written by a newer version of migrated",
                           "use that version, or another --state directory"));
  }
  if (version == 0) {
    MIGRATE_TRY(database.execute(kSchema));
  }
  if (version == 1) {
    MIGRATE_TRY(database.execute(kUpgradeFrom1));
  }
  if (version == 1 || version == 2) {
    MIGRATE_TRY(database.execute(kUpgradeFrom2));
  }
  if (version >= 1 && version <= 3) {
    MIGRATE_TRY(database.execute(kUpgradeFrom3));
  }
  if (version >= 1 && version <= 4) {
    MIGRATE_TRY(database.execute(kUpgradeFrom4));
  }
  return {};
}

ProcessRecord record_from(const Statement& row) {
  ProcessRecord record;
  record.process = row.text(0);
  record.role = static_cast<ProcessRole>(std::clamp<std::int64_t>(row.number(1), 0, 1));
  record.pid = static_cast<pid_t>(row.number(2));
  record.home = row.text(3);
  record.where = row.text(4);
  record.session = row.text(5);
  record.mode = row.text(6);
  record.state = static_cast<ProcessState>(std::clamp<std::int64_t>(row.number(7), 0, 7));
  if (!row.is_null(8)) {
    record.exit_status = static_cast<int>(row.number(8));
  }
  record.owed_pages = static_cast<std::uint64_t>(row.number(9));
  record.created_us = row.number(10);
  record.updated_us = row.number(11);
  record.uid = static_cast<uid_t>(row.number(12));
  record.command = row.text(13);
  record.result = row.text(14);
  record.worker = static_cast<pid_t>(row.number(15));
  record.mailbox = row.text(16);
  record.waits_for = row.text(17);
  record.waits_since_us = row.number(18);
  record.worker_start = static_cast<std::uint64_t>(row.number(19));
  record.owed_by = row.text(20);
  record.identity = row.text(21);
  record.moves = static_cast<std::uint32_t>(row.number(22));
  return record;
}

}  // namespace

bool ProcessRecord::has_worker() const {
  return worker > 0 && (worker_start == 0 ? start_time(worker) != 0
                                          : ProcessIdentity{worker, worker_start}.is_alive());
}

std::string Registry::path(const std::string& state_directory) {
  return state_directory + "/registry.sqlite";
}

Result<Registry> Registry::open(const std::string& state_directory, int patience_ms) {
  return Registry(
      MIGRATE_TRY(Database::open(path(state_directory), patience_ms, bring_up_to_date)));
}

Result<Registry> Registry::open_or_repair(const std::string& state_directory) {
  MIGRATE_TRY(Database::move_aside_if_damaged(path(state_directory)));
  Result<Registry> registry = open(state_directory);
  if (registry) {
    const std::string boot = boot_id();
    Statement retire(registry->database_,
                     "UPDATE processes SET state=CASE WHEN state=?5 THEN ?6 ELSE ?1 END,"
                     " updated_us=?2 WHERE (state<=?3 OR state=?5) AND boot<>?4");
    retire.bind(1, static_cast<std::int64_t>(ProcessState::kLost)).bind(2, calendar_us());
    retire.bind(3, static_cast<std::int64_t>(ProcessState::kDone)).bind(4, boot);
    retire.bind(5, static_cast<std::int64_t>(ProcessState::kChildrenLeft));
    retire.bind(6, static_cast<std::int64_t>(ProcessState::kExited));
    MIGRATE_TRY(retire.step());
  }
  return registry;
}

void Registry::set_patience(int milliseconds) {
  database_.set_patience(milliseconds);
}

Result<void> Registry::write(const char* sql, const ProcessRecord& record) {
  const std::int64_t now = calendar_us();
  const std::string boot = boot_id();
  Statement row(database_, sql);
  row.bind(1, record.process).bind(2, static_cast<std::int64_t>(record.role));
  row.bind(3, std::int64_t{record.pid}).bind(4, record.home).bind(5, record.where);
  row.bind(6, record.session).bind(7, record.mode);
  row.bind(8, static_cast<std::int64_t>(record.state));
  if (record.exit_status) {
    row.bind(9, std::int64_t{*record.exit_status});  // else it stays NULL
  }
  row.bind(10, static_cast<std::int64_t>(record.owed_pages));
  row.bind(11, record.created_us != 0 ? record.created_us : now);
  row.bind(12, record.updated_us != 0 ? record.updated_us : now);
  row.bind(13, std::int64_t{record.uid}).bind(14, record.command).bind(15, record.result);
  const pid_t worker = record.worker != 0 ? record.worker : getpid();
  row.bind(16, std::int64_t{worker});
  row.bind(17, record.mailbox).bind(18, boot);
  row.bind(19, record.waits_for).bind(20, record.waits_since_us);
  row.bind(21, static_cast<std::int64_t>(record.worker_start != 0 ? record.worker_start
                                                                  : start_time(worker)));
  row.bind(22, record.owed_by).bind(23, record.identity);
  row.bind(24, std::int64_t{record.moves});
  MIGRATE_TRY(row.step());
  return {};
}

Result<void> Registry::upsert(const ProcessRecord& record) {
  return write(kUpsert, record);
}

Result<bool> Registry::upsert_own(const ProcessRecord& record) {
  const std::string sql = std::string(kUpsert) + " WHERE worker=?16";
  MIGRATE_TRY(write(sql.c_str(), record));
  return database_.changes() != 0;
}

Result<void> Registry::remove(const std::string& process, ProcessRole role, pid_t worker) {
  Statement row(database_,
                "DELETE FROM processes WHERE process=?1 AND role=?2 AND (?3=0 OR worker=?3)");
  row.bind(1, process).bind(2, static_cast<std::int64_t>(role)).bind(3, std::int64_t{worker});
  MIGRATE_TRY(row.step());
  return {};
}

Result<std::vector<ProcessRecord>> Registry::select(const char* rest, const std::string& text,
                                                    std::int64_t number) {
  const std::string sql = std::string(kColumns) + rest;
  Statement query(database_, sql.c_str());
  query.bind(1, text).bind(2, number);
  std::vector<ProcessRecord> records;
  while (MIGRATE_TRY(query.step())) {
    records.push_back(record_from(query));
  }
  return records;
}

Result<std::optional<ProcessRecord>> Registry::find_pid(pid_t pid) {
  std::vector<ProcessRecord> records = MIGRATE_TRY(
      select("WHERE ?1='' AND pid=?2 AND state<=3 ORDER BY updated_us DESC LIMIT 1", "", pid));
  if (records.empty()) {
    return std::optional<ProcessRecord>();
  }
  return std::optional<ProcessRecord>(std::move(records.front()));
}

Result<std::vector<ProcessRecord>> Registry::find_process(
    const std::string& id_or_prefix, const std::function<bool(const ProcessRecord&)>& is_visible) {
  if (id_or_prefix.empty() ||
      id_or_prefix.find_first_not_of("0123456789abcdef") != std::string::npos) {
    return fail(make_error(ErrorCode::kInvalid, "find the process", "\"" + id_or_prefix + "\"",
                           "give the id, or the beginning of it, as `migratectl ps` shows it"));
  }
  std::vector<ProcessRecord> records =
      MIGRATE_TRY(select("WHERE substr(process, 1, ?2)=?1 ORDER BY updated_us DESC", id_or_prefix,
                         static_cast<std::int64_t>(id_or_prefix.size())));
  std::erase_if(records, [&](const ProcessRecord& record) { return !is_visible(record); });
  const auto is_exact = [&](const ProcessRecord& record) { return record.process == id_or_prefix; };
  if (std::any_of(records.begin(), records.end(), is_exact)) {
    std::erase_if(records, [&](const ProcessRecord& record) { return !is_exact(record); });
  }
  for (const ProcessRecord& record : records) {
    if (record.process != records.front().process) {
      return fail(make_error(ErrorCode::kInvalid, "find the process", "\"" + id_or_prefix + "\"",
                             "several processes begin like this; give more of the id"));
    }
  }
  return records;
}

Result<std::vector<ProcessRecord>> Registry::find_identity(const std::string& identity) {
  return select("WHERE identity=?1 AND ?2=?2 ORDER BY updated_us DESC", identity, 0);
}

Result<std::vector<ProcessRecord>> Registry::list(bool only_live) {
  std::vector<ProcessRecord> records =
      MIGRATE_TRY(select("WHERE ?1='' AND ?2=?2 ORDER BY created_us", "", 0));
  if (only_live) {
    std::erase_if(records, [](const ProcessRecord& record) { return !is_live(record.state); });
  }
  return records;
}

}  // namespace migrate
