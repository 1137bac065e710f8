#pragma once

#include <atomic>
#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/mapping.h"
#include "base/process_identity.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "libmigrate/state/phase.h"

namespace migrate {

/// The phase of a session, and how its process ended: one word, so that nobody reads the one
/// without the other. Worker and init of a cell both write it, each step by compare and exchange;
/// next_phase() says what becomes of a step that comes late.
class SessionPhase {
 public:
  static constexpr int kKilled = 9;  ///< The wait status of one ended by SIGKILL.

  GuestPhase guest() const { return GuestPhase{number()}; }
  HomePhase home() const { return HomePhase{number()}; }
  /// As wait(2) gives it. Counts if the phase is one in which the process has ended.
  int wait_status() const;
  /// The phase as the file has it, which may be damaged.
  std::uint32_t number() const;

  /// Makes the record of a guest that of a home, in its first phase.
  void become_home() { word_ = static_cast<std::uint64_t>(HomePhase::kOffered); }
  /// Takes a step, and returns in which phase the session is then. `wait_status` counts if the
  /// process has ended with this step: of several that say how it ended, the first one is right.
  GuestPhase enter(GuestPhase wanted, int wait_status = kKilled);
  HomePhase enter(HomePhase wanted, int wait_status = kKilled);
  /// The step of a cell's init that has reaped the process.
  GuestPhase note_end(int wait_status);

 private:
  template <class Phase, class Step>
  Phase take_step(Step step, int wait_status);

  std::atomic<std::uint64_t> word_ = static_cast<std::uint64_t>(GuestPhase::kPrepared);
};

/// The words of a session file that several processes read and write while it is mapped: the
/// worker, the cell's init, whoever adopts. They survive every process, not the host.
struct SessionMark {
  std::uint64_t magic = 0;
  char boot[40] = {};                     ///< The machine's boot id.
  std::atomic<std::int32_t> worker = 0;   ///< The worker that holds or last held the file.
  std::atomic<std::int32_t> process = 0;  ///< Pid of the moved process, as this host sees it.
  std::atomic<std::int32_t> init = 0;     ///< Pid of its cell's init; 0 at home.
  SessionPhase phase;
  std::atomic<std::uint64_t> worker_start = 0;  ///< When the worker was started, in clock ticks.
  std::atomic<std::uint64_t> area = 0;          ///< Script area of a process being moved away.
  std::atomic<std::uint32_t> slot = 0;          ///< Which of the two texts counts.
  std::atomic<std::uint64_t> offset[2] = {};
  std::atomic<std::uint64_t> length[2] = {};
  std::atomic<std::uint64_t> capacity[2] = {};
  std::atomic<std::uint64_t> process_start = 0;  ///< Of the process, in clock ticks.
  std::atomic<std::uint64_t> init_start = 0;     ///< Of the init.
  std::atomic<std::uint64_t> saves = 0;          ///< How often a text was written.

  ProcessIdentity init_identity() const { return {init, init_start}; }
  ProcessIdentity process_identity() const { return {process, process_start}; }
};

/// What a worker leaves behind for the one that takes over when it dies: a file in the state
/// directory with a mark and one text, a serialised message. Nothing is forced to disk: what a
/// crash of the host loses is lost with the process. A worker holds the file locked for its life,
/// so that whoever can lock it knows that the worker is dead. Owned by one thread.
class SessionFile {
 public:
  /// Makes the directory of all, if there is none, and what incarnation() tells. Errors: kSystem.
  static Result<void> prepare(const std::string& state_directory);
  /// Names this boot of the machine and this directory: as long as it is the same, a file that is
  /// not there was never made, or was removed by us. Errors: kNotFound (somebody has removed it).
  static Result<std::string> incarnation(const std::string& state_directory);

  /// Makes the file `name`, locks it, and is in the first phase of a home or a guest, which the
  /// name tells. Errors: kRefused (it exists), kSystem (disk full).
  static Result<SessionFile> create(const std::string& state_directory, const std::string& name);
  /// Locks an existing one. Errors: kNotFound, kRefused (its worker lives), kCorrupt, kSystem.
  static Result<SessionFile> open(const std::string& state_directory, const std::string& name);
  /// Names of all files there are. Those of an earlier boot of the machine are deleted; damaged
  /// ones, and those of another version of this program, are set aside as NAME.damaged, and the log
  /// says so. The files named in `known` are not
  /// looked into.
  static std::vector<std::string> list(const std::string& state_directory,
                                       const std::set<std::string>& known = {});

  SessionFile(SessionFile&&) noexcept = default;
  SessionFile& operator=(SessionFile&&) noexcept = default;

  SessionMark& mark() { return *reinterpret_cast<SessionMark*>(words_.bytes().data()); }
  const SessionMark& mark() const {
    return *reinterpret_cast<const SessionMark*>(words_.bytes().data());
  }
  /// Borrowed; mapping it shared gives the mark.
  int fd() const { return fd_.get(); }

  /// True when the worker that held the file last is wholly gone: the lock goes before its hold on
  /// the threads that it traces.
  bool worker_gone() const;
  /// Waits for that, for at most five seconds. Errors: kRetry (it is still there).
  Result<void> await_worker_gone() const;
  /// Of a dead worker: waits until it is certain whether the process died with it before it ran.
  void await_start() const;
  /// This process is the worker from now on.
  void take();

  /// Replaces the text: whoever reads finds the old or the new one, wherever the writer dies.
  Result<void> save(std::string_view text);
  Result<std::string> load() const;
  /// The text of a file that a worker has, who may be writing it just now. Errors: kNotFound (no
  /// such file), kRetry (it is written all the time), kCorrupt, kSystem.
  static Result<std::string> peek(const std::string& state_directory, const std::string& name);
  /// Deletes the file. The mark stays usable.
  void remove() const;

  /// For one whose text turns out to be damaged.
  void set_aside() const;
  /// True if a file of this name was damaged: what became of its process is not known here.
  static bool is_damaged(const std::string& state_directory, const std::string& name);

  /// The folder of all session files, and of the sockets of cells.
  static std::string directory(const std::string& state_directory);

 private:
  SessionFile(UniqueFd fd, Mapping words, std::string path)
      : fd_(std::move(fd)), words_(std::move(words)), path_(std::move(path)) {}
  static Result<SessionFile> lock(UniqueFd fd, std::string path);
  static void set_aside(const std::string& path, const char* what);

  UniqueFd fd_;
  Mapping words_;
  std::string path_;
  std::string saved_;  // what the slot holds, if we wrote it
};

/// Names of session files: of a process at its home, and of one that came to this host.
inline constexpr std::string_view kHomePrefix = "home-";
inline constexpr std::string_view kCellPrefix = "cell-";
std::string home_session_name(const std::string& process);
std::string cell_session_name(const std::string& session);

/// The machine's boot id.
std::string boot_id();

}  // namespace migrate
