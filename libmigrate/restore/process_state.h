#pragma once

#include <sys/resource.h>
#include <sys/types.h>

#include <array>
#include <cstdint>

#include "base/result.h"
#include "libmigrate/proto/image.pb.h"
#include "libmigrate/trace/script.h"

namespace migrate {

/// Resource limits and badness for the out-of-memory killer, as a process has them.
struct ProcessLimits {
  std::array<rlimit64, RLIM_NLIMITS> resources{};
  int oom_score_adjust = 0;
  std::uint32_t coredump_filter = 0;
  std::uint64_t timer_slack_ns = 0;  // of its first thread; 0: the kernel does not tell
};

/// Adds the calls by which the leader takes on, while the process still runs at the source, what of
/// it belongs to the whole process: executable, memory map (with no command line and environment
/// yet: to be called before its memory is mapped), working directory; and makes every signal action
/// the default. `executable` and `directory` are descriptors in the process.
void script_draft_process(Script& script, const wire::ProcessImage& draft, int executable,
                          int directory);

/// Adds the call by which the process enters the folder that is its descriptor `directory`.
void script_enter(Script& script, int directory);

/// Adds the calls for what differs from the draft but the working directory, and for what only the
/// image knows, after script_draft_process().
void script_process(Script& script, const wire::ProcessImage& image);

/// Adds the calls that need all threads to exist: timers, and the signals that are pending for the
/// whole process. `own` are the credentials that it has now, and afterwards.
void script_timers_and_signals(Script& script, const wire::ProcessImage& image,
                               const wire::Credentials& own);

/// Adds the calls by which one thread takes on what is its own, credentials last, then rseq.
/// `own` are the credentials that it has now.
void script_thread(Script& script, const wire::ProcessImage& image, const wire::Thread& thread,
                   const wire::Credentials& own);

/// Until set_scheduling(), a thread of a seed runs before all ordinary ones, as RealtimeScope does:
/// beside busy processors each of its scripts would wait for several of them. It must end with this
/// process. Makes no thread meanwhile: that would have no timer slack. Nothing, without the
/// permission or where `image` has a limit on real time.
void run_first(pid_t host_thread, const wire::ProcessImage& image);

/// What this process can set for `thread` of `image` from outside: scheduling and affinity.
/// `present` is the seed's, which run_first() was called for or not. What the system refuses is
/// logged and left. Errors: kSystem (what run_first() has given cannot be taken back).
Result<void> set_scheduling(pid_t host_thread, const wire::Thread& thread,
                            const ProcessLimits& present);

Result<ProcessLimits> read_limits(pid_t process);

/// Adds the calls by which the leader gives the process the image's resource limits where they
/// differ from `present`: while it has this daemon's rights, of which raising a hard limit needs
/// CAP_SYS_RESOURCE, and setting them from outside would need that for any.
void script_limits(Script& script, const wire::ProcessImage& image, const ProcessLimits& present);

/// Gives `process` from outside what the image says to the out-of-memory killer, to its group of
/// the scheduler and of core dumps, where that differs from `present`. What the system refuses is
/// logged and left. The group is raised above others only if the source is `trusted`.
void set_scores(pid_t process, const wire::ProcessImage& image, const ProcessLimits& present,
                bool trusted);

/// The credentials of this process, as a new seed has them.
Result<wire::Credentials> own_credentials();

}  // namespace migrate
