#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "base/process_identity.h"
#include "base/result.h"
#include "libmigrate/home/forwards.h"
#include "libmigrate/move/departure.h"
#include "libmigrate/proto/session.pb.h"
#include "libmigrate/requests/requests.h"
#include "libmigrate/state/pid_lock.h"
#include "libmigrate/state/process_row.h"
#include "libmigrate/state/session_file.h"
#include "transport/preamble.h"

namespace migrate {

/// What a row tells of a process's last move.
struct LastMove {
  bool is_owed = false;          ///< Pages are owed to the process, by this host or another.
  std::uint64_t owed_pages = 0;  ///< How many, as far as is known.
  std::string owed_by{};         ///< As in ProcessRecord.
  std::string result{};          ///< A JSON object.
};

/// What a home worker leaves behind of its process for the worker that takes over when it dies, and
/// what it tells of it: the session's file, the row, and the lock of the pid. Owned by one thread.
class HomeRecord {
 public:
  /// Of a process that is to leave its home. save() writes its text for the first time. Blocks for
  /// up to two seconds. Errors: kRetry (another worker has the process), kSystem.
  static Result<HomeRecord> create(const std::string& state_directory, const MoveRequest& request);
  /// Of `process`, whose worker died: waits until that one is gone. `file` is taken if it succeeds.
  /// Errors: kRetry (it is still there), kCorrupt, kSystem.
  static Result<HomeRecord> adopt(const std::string& state_directory, SessionFile& file,
                                  const SessionId& process);

  const SessionId& process() const { return process_; }
  pid_t pid() const { return text_.pid(); }
  const std::string& command() const { return text_.command(); }
  const std::string& token() const { return text_.token(); }
  ProcessIdentity identity() const { return file_.mark().process_identity(); }
  /// Of the script area in the process, where its parking record is.
  std::uint64_t area() const { return file_.mark().area; }
  void note_area(std::uint64_t area) { file_.mark().area = area; }

  /// In which mode it is moved; as of kModes. Rows show it from the next one on.
  void note_mode(std::string_view mode) { mode_ = mode; }

  HomePhase phase() const { return file_.mark().phase.home(); }
  /// The one place where a phase is written: into the record, the log and the row. `wait_status`
  /// counts if the process has ended with it, and nobody has noted how before.
  void enter(HomePhase phase, const LastMove& move = {}, int wait_status = SessionPhase::kKilled);
  /// Writes the row anew: it is what the record says.
  void write_row(const LastMove& move);
  /// The same, of a move's progress: see ProcessRow::set_progress().
  void show_progress(const LastMove& move);
  /// The same, of the JSON object that the last move has come to.
  void show_result(std::string json) { row_.set_result(std::move(json)); }
  /// Shows in the row for what `move` waits, at the time `now_us`.
  void show_waiting(const Departure& move, std::int64_t now_us);
  /// Shows for what the worker waits (empty: nothing), and since how long.
  void show_waiting(const std::string& what, std::int64_t waited_us) {
    row_.set_waiting(what, waited_us);
  }
  /// See ProcessRow::refresh().
  void refresh_row() { row_.refresh(); }
  /// The process is nobody's any more, and whoever asked for its move is told so.
  void remove_row() { row_.remove(); }

  /// The text of the file, of which save() writes what was changed.
  wire::HomeSession& text() { return text_; }
  const wire::HomeSession& text() const { return text_; }
  Whereabouts& where() { return where_; }
  /// Errors: kSystem (disk full); the old text stays.
  Result<void> save();
  /// save(), where the process must not suffer if that fails: the log has it then.
  void keep();

  /// Another worker may move what has this pid from now on.
  void release_pid() { pid_lock_.reset(); }
  /// Deletes the file: nothing is left to take over. The phase can still be asked for.
  void remove() const { file_.remove(); }
  /// Of one that cannot be read.
  void set_aside() const { file_.set_aside(); }

 private:
  HomeRecord(SessionFile file, ProcessRow row, const SessionId& process)
      : file_(std::move(file)), row_(std::move(row)), process_(process) {}

  std::optional<ProcessState> state_of(const LastMove& move) const;

  SessionFile file_;
  ProcessRow row_;
  SessionId process_;
  wire::HomeSession text_;
  std::optional<PidLock> pid_lock_;
  std::string mode_;  // of the last move
  Whereabouts where_;
};

/// The command line of a process with spaces between its words, or its name.
std::string command_line(pid_t pid);

}  // namespace migrate
