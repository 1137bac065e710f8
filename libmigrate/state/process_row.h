#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>

#include "base/result.h"
#include "libmigrate/state/registry.h"

namespace migrate {

/// The row of one process in the registry, as its worker keeps it.
///
/// It waits 0.1 s for other writers, and holds the whole row, so that refresh() can write again
/// what the database missed (disk full) or lost (damaged and moved aside, removed by hand). A row
/// is of the worker that began last to write it: what an earlier one, that is still leaving, would
/// change is dropped. A process does not depend on its row: failures are logged, once until a write
/// succeeds, and not returned. Blocks as Registry does. Owned by one thread, opened after fork.
class ProcessRow {
 public:
  /// Begins with the row that is there, if any. Errors: as Registry::open() and find_process().
  static Result<ProcessRow> open(const std::string& state_directory, const std::string& process,
                                 ProcessRole role);

  ProcessRow(ProcessRow&&) noexcept = default;
  ProcessRow& operator=(ProcessRow&&) noexcept = default;

  /// Replaces the row, but not for what its worker waits; `process` and `role` are filled in.
  void write(ProcessRecord record);
  /// Sets the state, and the number of owed pages if given.
  void set_state(ProcessState state, std::optional<std::uint64_t> owed_pages = std::nullopt);
  /// What a move has come to: state, owed pages, by whom, and its result, a JSON object. Written
  /// when the state changes, when nothing is owed, and else twice a second at most.
  void set_progress(ProcessState state, std::uint64_t owed_pages, std::string owed_by,
                    std::string json);
  /// Sets kExited, or kChildrenLeft, with `wait_status`, as waitpid gives it.
  void set_exit(int wait_status, ProcessState state = ProcessState::kExited);
  /// Sets the last move's result, a JSON object.
  void set_result(std::string json);
  /// Sets for what its worker waits (empty: nothing), and since how long. Writes only a change.
  void set_waiting(const std::string& waits_for, std::int64_t waited_us);
  /// Removes the row, unless it is another worker's by now.
  void remove();
  /// To be called now and then: looks once a second whether the row has to be written again.
  void refresh();

 private:
  struct FileId {
    dev_t device = 0;
    ino_t inode = 0;
    bool operator==(const FileId&) const = default;
  };
  ProcessRow(Registry registry, std::string state_directory, ProcessRecord record);
  FileId file_id() const;
  void save_change();
  void save();
  void note(const Result<bool>& saved);

  Registry registry_;
  std::string state_directory_;
  FileId file_;
  ProcessRecord record_;
  bool begun_ = false;   // was told to write the row, and not to remove it
  bool owned_ = false;   // has written it, so that it names this worker or a later one
  bool missed_ = false;  // the last write failed
  std::int64_t next_refresh_us_ = 0;
  std::int64_t next_progress_us_ = 0;
};

}  // namespace migrate
