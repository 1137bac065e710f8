#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "libmigrate/cell/cell_control.h"
#include "libmigrate/proto/home.pb.h"
#include "libmigrate/state/session_file.h"
#include "transport/handoff.h"

namespace migrate {

inline constexpr const char* kInitName = "migrate-init";  ///< Of the init of every cell.

/// What a cell needs to know before its first process exists.
struct CellOptions {
  std::uint32_t process_id = 0;          ///< The id that the moved process keeps inside.
  std::int64_t monotonic_offset_ns = 0;  ///< Cell's CLOCK_MONOTONIC minus this host's.
  std::int64_t boottime_offset_ns = 0;   ///< The same of CLOCK_BOOTTIME.
  /// The number that the terminal of its session is to have, if it has one and does not lead that:
  /// the init does then, and the process is in a group of its own. Else it leads a session.
  std::optional<unsigned> terminal;
  std::uint32_t highest_descriptor = 0;  ///< Of the moved process; the seed keeps above it.
  std::uint32_t login_user = ~0U;        ///< Of the process, for the audit log; ~0: nobody.
  std::string socket_path;               ///< Where a new worker finds the init.
  /// That of the process's home, if the cell is to have a network of its own, which is to be set up
  /// as that.
  std::optional<wire::HomeNetwork> network{};
  int session_file = -1;  ///< Borrowed: the init writes there how the process ends.
};

/// Something kept, on its way to the worker that takes over.
struct KeptDescriptor {
  Kept what;
  UniqueFd fd;
};

/// Where a moved process lives at the destination: its own PID, time and mount namespace with a
/// tiny init, and in it the seed, a stopped child with the wanted process id that becomes the
/// process. Once it holds something the init outlives the worker, and even the last process in the
/// cell, so that a new worker learns how the process ended; end() kills the init. Needs
/// CLONE_NEWTIME (5.6) and clone3 set_tid (5.5). Owned by the thread that made it.
class Cell : public CellControl {
 public:
  /// Makes the cell. Must be called while this process has one thread. Errors: kSystem.
  static Result<Cell> create(const CellOptions& options);

  /// Takes over a cell whose worker died, with what its init holds. The mark names its processes.
  /// Errors: kNotFound, kPeerLost (its init is dead), kSystem.
  static Result<Cell> adopt(const std::string& socket_path, const SessionMark& mark,
                            std::vector<KeptDescriptor>& kept);

  /// A cell whose init is dead: nothing is in it any more, and it tells nothing.
  static Cell gone(const std::string& socket_path, const SessionMark& mark);

  Cell(Cell&&) noexcept = default;
  Cell& operator=(Cell&&) noexcept = default;

  /// Ids as this host sees them.
  pid_t init() const { return init_; }
  pid_t seed() const override { return seed_; }
  /// The seed's id inside the cell.
  std::uint32_t process_id() const { return process_id_; }
  /// The seed's userfaultfd; taken once.
  UniqueFd take_userfault() { return std::move(userfault_); }
  int event_fd() const override { return init_socket_.get(); }
  Result<CellEvent> read_event() override;
  Result<void> keep(Kept what, int fd) override;
  Result<void> drop(Kept what) override;
  using CellControl::signal_seed;
  void signal_seed(int signal, siginfo_t* information) override;
  void signal_seed_as(int signal, pid_t sender, uid_t user) override;
  Result<PseudoTerminal> make_terminal(unsigned wanted) override;
  Result<PseudoTerminal> take_terminal() override;
  Result<void> set_foreground(bool in_foreground) override;
  /// Sends descriptors (at most 250) to the seed, whose recvmsg in a script takes them.
  Result<void> send_to_seed(std::span<const int> descriptors);
  /// Number of the socket in the seed.
  std::uint32_t seed_descriptor() const { return seed_descriptor_; }

  void end() override;
  bool end_and_wait() override;

 private:
  Cell() = default;
  bool is_dead() const;
  Result<void> receive_terminal();

  pid_t init_ = 0;
  pid_t seed_ = 0;
  std::uint32_t process_id_ = 0;
  UniqueFd init_pidfd_;
  UniqueFd seed_pidfd_;  // not valid once it has ended
  std::string socket_path_;
  std::optional<UnixListener> listener_;  // the init's; ours only keeps the file
  UniqueFd init_socket_;
  UniqueFd seed_socket_;
  UniqueFd userfault_;
  PseudoTerminal terminal_;  // of its session; not valid where there is none
  std::uint32_t seed_descriptor_ = 0;
};

}  // namespace migrate
