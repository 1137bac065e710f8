#pragma once

#include <sys/types.h>

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"

namespace migrate {

/// What a cell needs to know before its first process exists.
struct CellOptions {
  std::uint32_t process_id = 0;          ///< The id that the moved process keeps inside.
  std::int64_t monotonic_offset_ns = 0;  ///< Cell's CLOCK_MONOTONIC minus this host's.
  std::int64_t boottime_offset_ns = 0;   ///< The same of CLOCK_BOOTTIME.
  std::uint32_t highest_descriptor = 0;  ///< Of the moved process; the seed keeps above it.
};

/// News from a cell's init.
struct CellEvent {
  enum class Kind : std::uint32_t { kStatus, kEmpty };
  Kind kind = Kind::kStatus;
  int wait_status = 0;  ///< kStatus: as wait(2) gives it: exit, signal, stop or continue.
};

/// Where a moved process lives at the destination: its own PID, time and mount namespace with a
/// tiny init, and in it the seed, a stopped child with the wanted process id that becomes the
/// process. The init outlives the worker; the cell ends when the last process in it ends, or when
/// end() kills the init. Needs CLONE_NEWTIME (5.6) and clone3 set_tid (5.5).
/// Owned by the thread that made it.
class Cell {
 public:
  /// Makes the cell. Must be called while this process has one thread. Errors: kSystem.
  static Result<Cell> create(const CellOptions& options);

  Cell(Cell&&) noexcept = default;
  Cell& operator=(Cell&&) noexcept = default;

  /// Ids as this host sees them.
  pid_t init() const { return init_; }
  pid_t seed() const { return seed_; }
  /// The seed's id inside the cell.
  std::uint32_t process_id() const { return process_id_; }
  /// The seed's userfaultfd; taken once.
  UniqueFd take_userfault() { return std::move(userfault_); }
  /// Polls readable when read_event() has news.
  int event_fd() const { return init_socket_.get(); }
  /// The next event; kRetry when there is none now, kPeerLost when the init is gone.
  Result<CellEvent> read_event();
  /// Gives the init a duplicate to keep while the worker may die. Before the first one, a worker
  /// that dies takes the cell with it; after it, the cell lives on.
  Result<void> keep(int fd);
  /// Makes the init drop all that keep() gave it.
  Result<void> drop_kept();

  /// Sends descriptors (at most 250) to the seed, whose recvmsg in a script takes them.
  Result<void> send_to_seed(std::span<const int> descriptors);
  /// Number of the socket in the seed.
  std::uint32_t seed_descriptor() const { return seed_descriptor_; }

  /// Kills the init, and with it everything in the cell. Does not wait for the end.
  void end();

 private:
  Cell() = default;

  pid_t init_ = 0;
  pid_t seed_ = 0;
  std::uint32_t process_id_ = 0;
  UniqueFd init_pidfd_;
  UniqueFd init_socket_;
  UniqueFd seed_socket_;
  UniqueFd userfault_;
  std::uint32_t seed_descriptor_ = 0;
};

}  // namespace migrate
