#pragma once

#include <signal.h>
#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/result.h"
#include "libmigrate/arch/arch.h"
#include "libmigrate/capture/frozen_process.h"
#include "libmigrate/trace/script_area.h"
#include "libmigrate/trace/tracee.h"

namespace migrate {

/// What a process of one thread was at one moment, to make copies of it: a process that runs
/// nothing, and shares the memory of the first as a child of fork(2) does, page by page until one
/// of them writes. The first one goes on as if nothing had been, and has no child more.
///
/// A copy is what fork(2) would have returned 0 in, at any instruction: with all that such a child
/// has (descriptors, signal actions, credentials), a pid of its own, and without what it has not
/// (other threads, timers, pending signals, locks of fcntl). Its parent is the init of the host.
///
/// Whatever was not let go ends with this, or with the thread that owns it, which is the tracer.
/// Move-only.
class Snapshot {
 public:
  /// Of a frozen process, whose area is open. It stands still for as long as its page tables take
  /// to be copied. If the tracer dies within, the process goes on by itself. Errors: kRefused (it
  /// has more than one thread), kSystem (no memory, too many processes); the process is as it was.
  static Result<Snapshot> take(const FrozenProcess& frozen);

  Snapshot(Snapshot&& other) noexcept;
  Snapshot& operator=(Snapshot&&) = delete;
  Snapshot(const Snapshot&) = delete;
  ~Snapshot();

  /// Makes one copy more, which stands where the process was frozen. Errors: kSystem (no memory,
  /// too many processes of its user), kNotFound (the snapshot was killed).
  Result<pid_t> copy();
  /// Leaves a copy in a job control stop (SIGSTOP), traced by nobody, before its first instruction.
  /// Errors: kNotFound (it was killed), kSystem.
  Result<void> let_go(pid_t copy);

 private:
  /// Of the frozen thread: what a child does not get by itself.
  struct Ties {
    std::uint64_t tid_address = 0;
    std::uint64_t robust_list = 0;
    std::size_t robust_list_bytes = 0;
    stack_t alternate_stack{};
    RseqConfiguration rseq;
  };

  explicit Snapshot(const FrozenProcess& frozen);

  Result<pid_t> make_helper(const FrozenProcess& frozen, std::int64_t& inner_id);
  Result<pid_t> clone_from(pid_t process, std::uint64_t flags, std::uint64_t tid_address) const;
  Result<void> finish(pid_t copy) const;
  ScriptArea area_in(pid_t process) const;

  ScriptArea area_;  // of the frozen process; at the same place in all copies
  arch::GeneralRegisters registers_;
  std::uint64_t signal_mask_;
  std::uint64_t system_call_;
  Ties ties_;
  pid_t process_ = 0;  // runs nothing; 0: none
  std::vector<pid_t> copies_;
};

}  // namespace migrate
