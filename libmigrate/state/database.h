#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/result.h"

struct sqlite3;
struct sqlite3_stmt;

namespace migrate {

/// An SQLite database of the state directory, which several processes may have open at once, each
/// by a connection of its own that was opened after fork. Owned by one thread.
///
/// Errors of every call: kSystem (disk full, permission), kRetry (locked for longer than its
/// patience), kCorrupt (not or no longer a database).
class Database {
 public:
  /// Opens the file, creating it if missing, in write-ahead mode: a crash of the whole machine can
  /// lose the last writes, never all. Waits up to `patience_ms` for others, now and in each call.
  /// `prepare` makes its tables, as a part of opening it.
  static Result<Database> open(const std::string& path, int patience_ms,
                               const std::function<Result<void>(Database&)>& prepare);
  /// For the daemon's start: if the file is there and damaged, it is renamed, with what SQLite
  /// keeps beside it, and its new name logged.
  static Result<void> move_aside_if_damaged(const std::string& path);

  /// For how long each call waits for other writers, from now on.
  void set_patience(int milliseconds);
  /// Runs statements without values.
  Result<void> execute(const std::string& sql);
  /// Rows that the last statement changed.
  int changes() const;
  /// What the last call of SQLite came to.
  Error error(const char* operation) const;
  const std::string& path() const { return path_; }

 private:
  friend class Statement;
  struct Closer {
    void operator()(sqlite3* database) const;
  };
  Database(sqlite3* database, std::string path) : database_(database), path_(std::move(path)) {}
  static Result<Database> try_open(const std::string& path, int patience_ms,
                                   const std::function<Result<void>(Database&)>& prepare);

  std::unique_ptr<sqlite3, Closer> database_;
  std::string path_;
};

/// One prepared statement; its first failure is kept and reported by step(). Borrows its database.
class Statement {
 public:
  Statement(const Database& database, const char* sql);
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;
  ~Statement();

  /// `text` is borrowed until the last step().
  Statement& bind(int index, const std::string& text);
  Statement& bind(int index, std::int64_t number);
  /// True if a row is there, false at the end.
  Result<bool> step();
  std::string text(int column) const;
  std::int64_t number(int column) const;
  bool is_null(int column) const;

 private:
  Statement& note(int status);

  const Database& database_;
  sqlite3_stmt* statement_ = nullptr;
  int status_ = 0;
};

}  // namespace migrate
