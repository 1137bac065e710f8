#pragma once

#include <sys/types.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"

namespace migrate {

/// ptrace verbs on single threads. Every one must be called by the thread that seized it.
/// Errors: kNotFound when the thread is gone, else kSystem.

/// Becomes the tracer of `thread` without stopping it; new threads are traced from birth, and a new
/// program (execve) stops before its first instruction (PTRACE_EVENT_EXEC).
Result<void> seize(pid_t thread);
/// The same; if the tracer dies, so do the thread and those that it makes, until keep_running().
Result<void> seize_for_life(pid_t thread);
/// The stopped thread, and those that it makes, shall end when their tracer does, until
/// keep_running() or detach().
Result<void> end_with_tracer(pid_t thread);
/// The stopped thread shall outlive its tracer.
Result<void> keep_running(pid_t thread);
/// The same, with all else as seize() has it.
Result<void> outlive_tracer(pid_t thread);
/// Asks a seized thread to stop.
Result<void> interrupt(pid_t thread);
/// Lets a stopped thread go on, delivering `signal` if not 0.
Result<void> resume(pid_t thread, int signal = 0);
/// The same for a thread that interrupt() was called for and that has stopped for another reason,
/// so that it stops as it was asked. Any stop makes the kernel forget that it was asked
/// (ptrace_stop() in kernel/signal.c clears JOBCTL_TRAP_STOP).
Result<void> resume_to_interrupt(pid_t thread, int signal = 0);
/// Lets a stopped thread go on to its next stop at a system call: the entry, or from there the
/// exit.
Result<void> resume_to_call(pid_t thread);
/// Ends tracing of a stopped thread and lets it run, delivering `signal` if not 0.
Result<void> detach(pid_t thread, int signal = 0);

/// How a traced thread stopped.
struct Stop {
  int signal = 0;           ///< Of the stop; SIGTRAP for breakpoints and events.
  int event = 0;            ///< PTRACE_EVENT_*, or 0.
  bool group_stop = false;  ///< Job control stop (SIGSTOP and kin).
};
/// Ends a process that runs another program (PTRACE_EVENT_EXEC) although we had all its threads
/// stopped or in loops of ours: somebody, who can only be its user, has written into its memory.
/// What we would do next to the process we would do to that program. Returns kNotFound, saying so.
Error end_impostor(pid_t process);

/// Waits for `thread` to stop. Blocks. kNotFound (with the wait status as text) if it ended. For a
/// process that is not in our hands yet, and may run another program.
Result<Stop> wait_any_stop(pid_t thread);
/// The same for the first thread of `process`, whose other threads are all stopped, each with its
/// stop awaited. When a process is killed, the kernel tells of its first thread last, and of the
/// others their tracer only: they are reaped here.
Result<Stop> wait_any_stop_of_first(pid_t process);

/// The same for a process that is: an impostor is ended, kNotFound.
Result<Stop> wait_stop(pid_t thread);
Result<Stop> wait_stop_of_first(pid_t process);

/// Reaps a traced thread that is dying, for which ptrace verbs give kNotFound: until then its
/// process cannot end. The first thread last. Waits up to a second.
void reap(pid_t thread);

/// Whether a process, which need not be traced, is gone, or nobody has asked for its end yet.
bool has_ended(pid_t process);

/// Whether it was killed, and nobody has asked for its end yet; false once it is gone. Its first
/// thread may still be seen to run, or to stand in a stop.
bool is_dying(pid_t process);

/// Either of both: there is nothing left of it to be moved.
bool is_ending(pid_t process);

/// Waits until a process that nobody traces has come to the job control stop that it was sent into.
/// Errors: kSystem (not within two seconds: it was let go on, or has ended), kNotFound (it is
/// gone).
Result<void> await_job_stop(pid_t process);

/// The signal mask of a stopped thread.
Result<std::uint64_t> read_signal_mask(pid_t thread);
Result<void> write_signal_mask(pid_t thread, std::uint64_t mask);

/// Pending signals of a stopped thread as siginfo_t bytes, without taking them.
/// `shared`: those of the whole process.
Result<std::vector<std::string>> peek_signals(pid_t thread, bool shared);

/// Whether `signal` waits for a thread, which need not be traced, or for its whole process.
bool is_pending(pid_t thread, int signal);

/// The rseq area that a stopped thread registered; address 0 without one.
struct RseqConfiguration {
  std::uint64_t address = 0;
  std::uint32_t length = 0;
  std::uint32_t signature = 0;
  std::uint32_t flags = 0;
};
Result<RseqConfiguration> read_rseq(pid_t thread);

/// Whether a stopped thread has its system calls sent to itself (PR_SET_SYSCALL_USER_DISPATCH): no
/// script can run in it then. False where the kernel does not tell (before Linux 6.4).
bool dispatches_calls(pid_t thread);

/// Copies memory of another process; short copies are errors (kSystem, EFAULT, with address).
Result<void> read_memory(pid_t process, std::uint64_t address, std::span<std::byte> into);
Result<void> write_memory(pid_t process, std::uint64_t address, std::span<const std::byte> from);

}  // namespace migrate
