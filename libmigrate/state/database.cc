#include "libmigrate/state/database.h"

#include <sqlite3.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <thread>
#include <utility>

#include "base/clock.h"
#include "base/log.h"

namespace migrate {
namespace {

constexpr std::chrono::milliseconds kOpenPause{5};

}  // namespace

void Database::Closer::operator()(sqlite3* database) const {
  sqlite3_close(database);
}

Result<Database> Database::open(const std::string& path, int patience_ms,
                                const std::function<Result<void>(Database&)>& prepare) {
  // While another process switches to WAL, recovers it or closes as the last one, SQLite reports
  // the database as locked without waiting, whatever the busy timeout.
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(patience_ms);
  for (;;) {
    Result<Database> database = try_open(path, patience_ms, prepare);
    if (database || database.error().code != ErrorCode::kRetry ||
        std::chrono::steady_clock::now() >= deadline) {
      return database;
    }
    std::this_thread::sleep_for(kOpenPause);
  }
}

Result<Database> Database::try_open(const std::string& path, int patience_ms,
                                    const std::function<Result<void>(Database&)>& prepare) {
  sqlite3* raw = nullptr;
  const int status =
      sqlite3_open_v2(path.c_str(), &raw,
                      SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, nullptr);
  Database database(raw, path);
  if (status != SQLITE_OK) {
    return fail(database.error("open a database"));
  }
  sqlite3_busy_timeout(raw, patience_ms);
  MIGRATE_TRY(database.execute("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;"));
  MIGRATE_TRY(prepare(database));
  return database;
}

Result<void> Database::move_aside_if_damaged(const std::string& path) {
  if (::access(path.c_str(), F_OK) != 0) {
    return {};
  }
  constexpr int kPatienceMs = 5000;
  const auto sound = open(path, kPatienceMs, [](Database& database) -> Result<void> {
    Statement check(database, "PRAGMA quick_check(1)");
    MIGRATE_TRY(check.step());
    return check.text(0) == "ok" ? Result<void>()
                                 : Result<void>(fail(make_error(ErrorCode::kCorrupt, "check")));
  });
  if (sound || sound.error().code != ErrorCode::kCorrupt) {
    return {};  // What else keeps it from being opened, whoever uses it is told.
  }
  const std::string aside = path + ".damaged-" + std::to_string(calendar_us() / 1'000'000);
  for (const char* suffix : {"", "-wal", "-shm"}) {
    const std::string from = path + suffix;
    const std::string target = aside + suffix;
    if (std::rename(from.c_str(), target.c_str()) != 0 && errno != ENOENT) {
      return fail(system_error("rename", from, "move the damaged database away by hand"));
    }
  }
  log::error("{} was damaged; moved aside to {}, beginning a new one", path, aside);
  return {};
}

void Database::set_patience(int milliseconds) {
  sqlite3_busy_timeout(database_.get(), milliseconds);
}

Result<void> Database::execute(const std::string& sql) {
  if (sqlite3_exec(database_.get(), sql.c_str(), nullptr, nullptr, nullptr) != SQLITE_OK) {
    return fail(error("open a database"));
  }
  return {};
}

int Database::changes() const {
  return sqlite3_changes(database_.get());
}

Error Database::error(const char* operation) const {
  const int status = sqlite3_errcode(database_.get());
  ErrorCode code = ErrorCode::kSystem;
  std::string remedy = "check space and permissions of the state directory";
  if (status == SQLITE_CORRUPT || status == SQLITE_NOTADB) {
    code = ErrorCode::kCorrupt;
    remedy = "restart migrated: it moves the damaged file aside and begins a new one";
  } else if (status == SQLITE_BUSY || status == SQLITE_LOCKED) {
    code = ErrorCode::kRetry;
    remedy = "another process holds it; try again";
  }
  return make_error(code, operation, path_ + ": " + sqlite3_errmsg(database_.get()),
                    std::move(remedy));
}

Statement::Statement(const Database& database, const char* sql) : database_(database) {
  status_ = sqlite3_prepare_v2(database.database_.get(), sql, -1, &statement_, nullptr);
}

Statement::~Statement() {
  sqlite3_finalize(statement_);
}

Statement& Statement::bind(int index, const std::string& text) {
  return note(sqlite3_bind_text(statement_, index, text.data(), static_cast<int>(text.size()),
                                nullptr));  // null destructor: borrowed (SQLITE_STATIC)
}

Statement& Statement::bind(int index, std::int64_t number) {
  return note(sqlite3_bind_int64(statement_, index, number));
}

Result<bool> Statement::step() {
  if (status_ == SQLITE_OK) {
    const int stepped = sqlite3_step(statement_);
    if (stepped == SQLITE_ROW || stepped == SQLITE_DONE) {
      return stepped == SQLITE_ROW;
    }
  }
  return fail(database_.error("use a database"));
}

std::string Statement::text(int column) const {
  const void* bytes = sqlite3_column_blob(statement_, column);
  const auto length = static_cast<std::size_t>(sqlite3_column_bytes(statement_, column));
  return bytes == nullptr ? std::string() : std::string(static_cast<const char*>(bytes), length);
}

std::int64_t Statement::number(int column) const {
  return sqlite3_column_int64(statement_, column);
}

bool Statement::is_null(int column) const {
  return sqlite3_column_type(statement_, column) == SQLITE_NULL;
}

Statement& Statement::note(int status) {
  status_ = status_ == SQLITE_OK ? status : status_;
  return *this;
}

}  // namespace migrate
