#include "libmigrate/state/registry.h"

#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <thread>
#include <utility>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/process_identity.h"
#include "libmigrate/state/session_file.h"

namespace migrate {
namespace {

constexpr std::chrono::milliseconds kOpenPause{5};
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

/// Renames the database and what SQLite keeps beside it.
Result<std::string> move_aside(const std::string& path) {
  const std::string aside = path + ".damaged-" + std::to_string(calendar_us() / 1'000'000);
  for (const char* suffix : {"", "-wal", "-shm"}) {
    const std::string from = path + suffix;
    const std::string target = aside + suffix;
    if (std::rename(from.c_str(), target.c_str()) != 0 && errno != ENOENT) {
      return fail(system_error("rename", from, "move the damaged registry away by hand"));
    }
  }
  return aside;
}

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

/// One prepared statement; its first failure is kept and reported by step().
class Statement {
 public:
  Statement(const Registry& registry, const char* sql) : registry_(registry) {
    status_ = sqlite3_prepare_v2(registry.database_.get(), sql, -1, &statement_, nullptr);
  }
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;
  ~Statement() { sqlite3_finalize(statement_); }

  Statement& bind(int index, const std::string& text) {
    return note(sqlite3_bind_text(statement_, index, text.data(), static_cast<int>(text.size()),
                                  nullptr));  // null destructor: borrowed (SQLITE_STATIC)
  }
  Statement& bind(int index, std::int64_t number) {
    return note(sqlite3_bind_int64(statement_, index, number));
  }
  /// True if a row is there, false at the end.
  Result<bool> step() {
    if (status_ == SQLITE_OK) {
      const int stepped = sqlite3_step(statement_);
      if (stepped == SQLITE_ROW || stepped == SQLITE_DONE) {
        return stepped == SQLITE_ROW;
      }
    }
    return fail(registry_.database_error("use the registry"));
  }
  std::string text(int column) const {
    const void* bytes = sqlite3_column_blob(statement_, column);
    const auto length = static_cast<std::size_t>(sqlite3_column_bytes(statement_, column));
    return bytes == nullptr ? std::string() : std::string(static_cast<const char*>(bytes), length);
  }
  std::int64_t number(int column) const { return sqlite3_column_int64(statement_, column); }
  bool is_null(int column) const { return sqlite3_column_type(statement_, column) == SQLITE_NULL; }

 private:
  Statement& note(int status) {
    status_ = status_ == SQLITE_OK ? status : status_;
    return *this;
  }

  const Registry& registry_;
  sqlite3_stmt* statement_ = nullptr;
  int status_ = SQLITE_OK;
};

namespace {

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

void Registry::Closer::operator()(sqlite3* database) const {
  sqlite3_close(database);
}

Error Registry::database_error(const char* operation) const {
  const int status = sqlite3_errcode(database_.get());
  ErrorCode code = ErrorCode::kSystem;
  std::string remedy = "check space and permissions of the state directory";
  if (status == SQLITE_CORRUPT || status == SQLITE_NOTADB) {
    code = ErrorCode::kCorrupt;
    remedy = "restart migrated: it moves the damaged file aside and begins a new registry";
  } else if (status == SQLITE_BUSY || status == SQLITE_LOCKED) {
    code = ErrorCode::kRetry;
    remedy = "another process holds the registry; try again";
  }
  return make_error(code, operation, path_ + ": " + sqlite3_errmsg(database_.get()),
                    std::move(remedy));
}

Result<void> Registry::execute(const char* sql) {
  if (sqlite3_exec(database_.get(), sql, nullptr, nullptr, nullptr) != SQLITE_OK) {
    return fail(database_error("open the registry"));
  }
  return {};
}

Result<Registry> Registry::open(const std::string& state_directory, int patience_ms) {
  // While another process switches to WAL, recovers it or closes as the last one, SQLite reports
  // the database as locked without waiting, whatever the busy timeout.
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(patience_ms);
  for (;;) {
    Result<Registry> registry = try_open(state_directory, patience_ms);
    if (registry || registry.error().code != ErrorCode::kRetry ||
        std::chrono::steady_clock::now() >= deadline) {
      return registry;
    }
    std::this_thread::sleep_for(kOpenPause);
  }
}

Result<Registry> Registry::try_open(const std::string& state_directory, int patience_ms) {
  const std::string file = path(state_directory);
  sqlite3* raw = nullptr;
  const int status =
      sqlite3_open_v2(file.c_str(), &raw,
                      SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, nullptr);
  Registry registry(raw, file);
  if (status != SQLITE_OK) {
    return fail(registry.database_error("open the registry"));
  }
  sqlite3_busy_timeout(raw, patience_ms);
  // A row lost by a crash of the whole machine is lost with the process it tells of, so that the
  // database need not be synchronised at each write (WAL with NORMAL keeps it whole).
  MIGRATE_TRY(registry.execute("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;"));
  int version = 0;
  {
    Statement query(registry, "PRAGMA user_version");
    MIGRATE_TRY(query.step());
    version = static_cast<int>(query.number(0));
  }
  if (version > kSchemaVersion) {
    return fail(make_error(ErrorCode::kUnsupported, "open the registry",
                           file + ": written by a newer version of migrated",
                           "use that version, or another --state directory"));
  }
  if (version == 0) {
    MIGRATE_TRY(registry.execute(kSchema));
  }
  if (version == 1) {
    MIGRATE_TRY(registry.execute(kUpgradeFrom1));
  }
  if (version == 1 || version == 2) {
    MIGRATE_TRY(registry.execute(kUpgradeFrom2));
  }
  if (version >= 1 && version <= 3) {
    MIGRATE_TRY(registry.execute(kUpgradeFrom3));
  }
  if (version >= 1 && version <= 4) {
    MIGRATE_TRY(registry.execute(kUpgradeFrom4));
  }
  return registry;
}

Result<Registry> Registry::open_or_repair(const std::string& state_directory) {
  Result<Registry> registry = open(state_directory);
  bool damaged = !registry && registry.error().code == ErrorCode::kCorrupt;
  if (registry) {
    Statement check(*registry, "PRAGMA quick_check(1)");
    const Result<bool> row = check.step();
    damaged = !row || check.text(0) != "ok" || !registry->list();
  }
  if (damaged) {
    registry = fail(make_error(ErrorCode::kCorrupt, "open the registry"));  // closes it
    const std::string aside = MIGRATE_TRY(move_aside(path(state_directory)));
    log::error("the registry was damaged; moved aside to {}, beginning a new one", aside);
    registry = open(state_directory);
  }
  if (registry) {
    const std::string boot = boot_id();
    Statement retire(*registry,
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
  sqlite3_busy_timeout(database_.get(), milliseconds);
}

Result<void> Registry::write(const char* sql, const ProcessRecord& record) {
  const std::int64_t now = calendar_us();
  const std::string boot = boot_id();
  Statement row(*this, sql);
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
  return sqlite3_changes(database_.get()) != 0;
}

Result<void> Registry::remove(const std::string& process, ProcessRole role, pid_t worker) {
  Statement row(*this,
                "DELETE FROM processes WHERE process=?1 AND role=?2 AND (?3=0 OR worker=?3)");
  row.bind(1, process).bind(2, static_cast<std::int64_t>(role)).bind(3, std::int64_t{worker});
  MIGRATE_TRY(row.step());
  return {};
}

Result<std::vector<ProcessRecord>> Registry::select(const char* rest, const std::string& text,
                                                    std::int64_t number) {
  const std::string sql = std::string(kColumns) + rest;
  Statement query(*this, sql.c_str());
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

Result<std::vector<ProcessRecord>> Registry::list(bool only_live) {
  std::vector<ProcessRecord> records =
      MIGRATE_TRY(select("WHERE ?1='' AND ?2=?2 ORDER BY created_us", "", 0));
  if (only_live) {
    std::erase_if(records, [](const ProcessRecord& record) { return !is_live(record.state); });
  }
  return records;
}

}  // namespace migrate
