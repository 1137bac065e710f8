#pragma once

#include <sys/types.h>

#include <cstddef>
#include <span>

#include "base/process_identity.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "libmigrate/rights/asker.h"

namespace migrate {

/// A process of our own with somebody's user, groups and capabilities, which tries in his name what
/// he asks for, so that the kernel decides: user and group ids, capabilities, whether the program
/// is dumpable, namespaces, Yama, security modules. It tries only what has no effect. The user may
/// signal it, as it is his: he gets no answer then, which is none in his favour.
/// Owned by one thread.
class StandIn {
 public:
  /// Forks; may be called while this process has other threads. Needs CAP_SETUID and CAP_SETGID.
  /// Errors: kSystem.
  static Result<StandIn> create(const Asker& asker);

  StandIn(StandIn&&) noexcept = default;
  StandIn& operator=(StandIn&& other) noexcept;
  StandIn(const StandIn&) = delete;
  ~StandIn();

  /// Asks whether he may attach a debugger to each of these threads of one process, its first one
  /// first (PTRACE_MODE_ATTACH_REALCREDS by process_vm_readv; PTRACE_MODE_READ_FSCREDS if he is the
  /// process himself). Others that have ended count for nothing. Does not wait: the next answer()
  /// is about this. Errors: kSystem.
  Result<void> ask_attach(std::span<const pid_t> threads);
  /// Asks whether he may send the process a signal (kill(2) with signal 0). The same.
  Result<void> ask_signal(pid_t process);
  /// The answer: he may. Waits for it, up to 30 s; if the stand-in was stopped by a signal, up to a
  /// second. Errors: kRefused (he may not, or there was no answer; the error names the process),
  /// kNotFound (it has ended), kInvalid (nothing was asked).
  Result<void> answer();

 private:
  StandIn(Asker asker, UniqueFd process, UniqueFd socket)
      : asker_(std::move(asker)), process_(std::move(process)), socket_(std::move(socket)) {}

  bool is_stopped() const;
  bool has_answer() const;
  Result<void> ask(int question, std::span<const pid_t> ids);
  void end();

  Asker asker_;
  UniqueFd process_;  // a pidfd
  UniqueFd socket_;
  std::size_t awaited_ = 0;  // messages
};

/// Asks once, of every thread that `process` has now. Errors: as StandIn::answer(), kSystem. Blocks
/// for a millisecond or so. What is decided here holds for this moment only: for the process that
/// is to be moved it is asked again once it is frozen.
Result<void> may_attach(const Asker& asker, pid_t process);
Result<void> may_signal(const Asker& asker, pid_t process);

/// Sends the process a signal as `asker` would by kill(2): the kernel judges that, and whoever gets
/// it is told his user id. Signal 0 sends nothing. Blocks for a millisecond or so, up to 30 s on a
/// busy host. Errors: kRefused (he may not, or a signal of his user's kept it from being sent),
/// kNotFound (the process has ended), kSystem.
Result<void> send_signal_as(const Asker& asker, const ProcessIdentity& process, int signal);

}  // namespace migrate
