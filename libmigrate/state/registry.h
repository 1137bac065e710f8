#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "libmigrate/state/database.h"

namespace migrate {

/// What this host is to a process.
enum class ProcessRole : std::uint8_t {
  kHome,   ///< It was started here; a deputy keeps its pid.
  kGuest,  ///< It was started elsewhere and runs, or ran, here in a cell.
};

/// Where a process stands, seen from this host.
enum class ProcessState : std::uint8_t {
  kMoving,        ///< A move is under way and not yet committed.
  kRunningHere,   ///< It runs on this host.
  kAway,          ///< It runs elsewhere, and pages are still owed to it, by whichever host.
  kDone,          ///< It runs elsewhere and is owed nothing.
  kExited,        ///< It has ended; exit_status tells how.
  kFailed,        ///< The move failed before commit: the process runs on as if never moved.
  kLost,          ///< Ended by the loss of a host or worker.
  kChildrenLeft,  ///< As kExited, but children that it left are looked after.
};

std::string_view to_string(ProcessRole role);
std::string_view to_string(ProcessState state);

/// True while a worker looks after the process (moving, running here, away, done, children left).
bool is_live(ProcessState state);

/// One row: one process in one role on this host.
struct ProcessRecord {
  std::string process;  ///< Id in hexadecimal, the same on every host. Key, with `role`.
  ProcessRole role = ProcessRole::kHome;
  pid_t pid = 0;        ///< On this host: the deputy's, or that of the guest.
  std::string home;     ///< Address of the home host; empty: this one.
  std::string where;    ///< Address of the host where it runs now; empty: this one.
  std::string session;  ///< Id of the last move's session in hexadecimal.
  std::string mode;
  ProcessState state = ProcessState::kMoving;
  std::optional<int> exit_status;  ///< As waitpid gives it.
  std::uint64_t owed_pages = 0;    ///< To the process.
  std::int64_t created_us = 0;     ///< CLOCK_REALTIME; upsert keeps the first.
  std::int64_t updated_us = 0;     ///< CLOCK_REALTIME; 0: filled with the time of the write.
  uid_t uid = 0;
  std::string command;              ///< The command line, for people.
  std::string result;               ///< The last move's result, a JSON object, or empty.
  pid_t worker = 0;                 ///< Who looks after it; 0: filled with the caller's pid.
  std::string mailbox;              ///< Name of its mailbox; empty: `process`.
  std::string waits_for;            ///< For what the worker waits; empty: nothing.
  std::int64_t waits_since_us = 0;  ///< CLOCK_REALTIME.
  std::string owed_by;              ///< Address of the host that owes them; empty: this one.
  std::string identity;             ///< Its global name, as to_string() gives it.
  std::uint32_t moves = 0;          ///< That it has made when it is here; of a guest only.
  std::uint64_t worker_start = 0;   ///< When that one was started; 0: not known, or filled in.

  /// Whether its worker lives: that one, and not a later process with its pid.
  bool has_worker() const;
  const std::string& mailbox_name() const { return mailbox.empty() ? process : mailbox; }
};

/// The daemon's record of moves: an SQLite database `registry.sqlite` in the state directory.
///
/// Each row is its worker's, which keeps it by ProcessRow. Several processes may have the database
/// open at once, each through a Registry of its own that was opened after fork. Writers wait for
/// each other. Owned by one thread. Errors of every call: kSystem (disk full, permission), kRetry
/// (locked for longer), kCorrupt (not or no longer a database; open_or_repair at the daemon's next
/// start moves it aside).
class Registry {
 public:
  /// Opens the database, creating it if missing. The directory must exist. Blocks on disk.
  /// Each call waits up to `patience_ms` for other writers.
  static Result<Registry> open(const std::string& state_directory, int patience_ms = 5000);

  /// As open(), for the daemon's start: a damaged database is renamed (its new name is logged) and
  /// an empty one made; rows of processes that lived before the machine's last boot become kLost.
  static Result<Registry> open_or_repair(const std::string& state_directory);

  /// Of the database.
  static std::string path(const std::string& state_directory);

  Registry(Registry&&) noexcept = default;
  Registry& operator=(Registry&&) noexcept = default;

  /// For how long each call waits for other writers, from now on.
  void set_patience(int milliseconds);

  /// Inserts, or replaces the row of the same process and role (its created_us stays).
  Result<void> upsert(const ProcessRecord& record);
  /// As upsert(), but leaves the row alone, and says so by false, if it names another worker.
  Result<bool> upsert_own(const ProcessRecord& record);
  /// Forgets a row; success if there is none, or if it names another worker than `worker` (0: any).
  Result<void> remove(const std::string& process, ProcessRole role, pid_t worker = 0);

  /// The live row with this pid (of kChildrenLeft it is free, and may be another's) on this host,
  /// the most recently updated first, if any.
  Result<std::optional<ProcessRecord>> find_pid(pid_t pid);
  /// The rows of one process, by its id or a unique prefix of it, most recently updated first;
  /// empty if unknown. Errors: kInvalid (not hexadecimal, or several processes match).
  /// Those that are not visible to who asks are as if they were not there, that of a prefix
  /// included.
  Result<std::vector<ProcessRecord>> find_process(
      const std::string& id_or_prefix, const std::function<bool(const ProcessRecord&)>& is_visible =
                                           [](const ProcessRecord&) { return true; });
  /// The rows of the processes with this global name, as to_string() gives it, most recently
  /// updated first: several of one role if moves have failed.
  Result<std::vector<ProcessRecord>> find_identity(const std::string& identity);
  /// Every row, oldest first; only the live ones if `only_live`.
  Result<std::vector<ProcessRecord>> list(bool only_live = false);

 private:
  explicit Registry(Database database) : database_(std::move(database)) {}
  Result<std::vector<ProcessRecord>> select(const char* rest, const std::string& text,
                                            std::int64_t number);
  Result<void> write(const char* sql, const ProcessRecord& record);

  Database database_;
};

}  // namespace migrate
