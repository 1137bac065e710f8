#pragma once

#include <signal.h>
#include <sys/types.h>

#include <cstdint>

#include "base/result.h"
#include "libmigrate/proc/terminal.h"

namespace migrate {

/// What a cell's init holds for the worker that takes over.
struct Kept {
  enum class Kind : std::uint32_t {
    kUserfault = 1,  ///< `number`: of the address space, from 1.
    kLedger,         ///< Of the same address space.
    kRelayIn,        ///< Our ends of a relayed stream; `number`: its id and 1.
    kRelayOut,
    kRelayUnread,
    kSharedFile,  ///< `number`: OpenFile.shared_id.
    kGateway,     ///< Gateway::device().
  };
  Kind kind = Kind::kUserfault;
  std::uint32_t number = 0;
  std::uint32_t parent = 0;  ///< kUserfault: the address space that forked it.

  friend bool operator==(const Kept& a, const Kept& b) {
    return a.kind == b.kind && a.number == b.number;
  }
};

/// News from a cell's init.
struct CellEvent {
  enum class Kind : std::uint32_t { kStatus, kEmpty };
  Kind kind = Kind::kStatus;
  int wait_status = 0;  ///< kStatus: as wait(2) gives it: exit, signal, stop or continue.
};

/// A cell as the worker of the process in it sees it. Cell is the one that there is; tests of the
/// worker have another. Threads: the worker's, but for keep() and drop(), which any may call.
class CellControl {
 public:
  CellControl() = default;
  CellControl(CellControl&&) noexcept = default;
  CellControl& operator=(CellControl&&) noexcept = default;
  virtual ~CellControl() = default;

  /// The process's pid as this host sees it.
  virtual pid_t seed() const = 0;
  /// Polls readable when read_event() has news.
  virtual int event_fd() const = 0;
  /// The next event; kRetry when there is none now, kPeerLost when the init is gone,
  /// and with it everything in the cell. Blocks for 20 ms at most, while that is coming to its end.
  virtual Result<CellEvent> read_event() = 0;
  /// Gives the init a duplicate to keep while the worker may die. Before the first one, a worker
  /// that dies takes the cell with it; after it, the cell lives on.
  virtual Result<void> keep(Kept what, int fd) = 0;
  /// Makes the init close it; with number 0 all of the kind.
  virtual Result<void> drop(Kept what) = 0;
  /// Sends the seed a signal, as `information` says or as from kill(2); never a later process that
  /// has its id.
  virtual void signal_seed(int signal, siginfo_t* information) = 0;
  void signal_seed(int signal) { signal_seed(signal, nullptr); }
  /// Sends the seed a signal as kill(2) of `sender` does, a process of `user` elsewhere: handlers
  /// see both. If a process in the cell has that pid, they see another one.
  virtual void signal_seed_as(int signal, pid_t sender, uid_t user) = 0;
  /// Makes a pseudo-terminal that only the cell sees, as number `wanted` if that can be. Errors:
  /// kNotFound (the cell has no devpts of its own), kSystem.
  virtual Result<PseudoTerminal> make_terminal(unsigned wanted) = 0;
  /// The terminal of the session that the init leads; once. The process's group is not in the
  /// foreground yet. Errors: kNotFound (the process leads a session).
  virtual Result<PseudoTerminal> take_terminal() = 0;
  /// Has that terminal's input and signals go to the process's group, or to nobody. Blocks until it
  /// is so. Errors: kPeerLost, kSystem.
  virtual Result<void> set_foreground(bool in_foreground) = 0;
  /// Kills the init, and with it everything in the cell. Does not wait for the end.
  virtual void end() = 0;
  /// end(), and waits until nothing of the cell can run any more; reaps all children and tracees of
  /// this thread. False: not within 10 s.
  virtual bool end_and_wait() = 0;
};

}  // namespace migrate
