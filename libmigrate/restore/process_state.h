#pragma once

#include <sys/types.h>

#include <cstdint>

#include "base/result.h"
#include "libmigrate/proto/image.pb.h"
#include "libmigrate/trace/script.h"

namespace migrate {

/// Adds the calls by which the leader takes on what belongs to the whole process: names, working
/// directory, memory map, signal actions. `scratch` must be the lowest free descriptor.
void script_process(Script& script, const wire::Image& image, std::uint64_t scratch);

/// Adds the calls that need all threads to exist: timers, and the signals that are pending for the
/// whole process.
void script_timers_and_signals(Script& script, const wire::Image& image);

/// Adds the calls by which one thread takes on what is its own, credentials last, then rseq.
/// `own` are the credentials that it has now.
void script_thread(Script& script, const wire::Image& image, const wire::Thread& thread,
                   const wire::Credentials& own);

/// What this process can set for `thread` of `image` from outside: scheduling and affinity. What
/// the system refuses is logged and left.
void set_scheduling(pid_t host_thread, const wire::Thread& thread);

/// Sets the resource limits of `process` and its badness for the out-of-memory killer.
Result<void> set_limits(pid_t process, const wire::Image& image);

/// The credentials of this process, as a new seed has them.
Result<wire::Credentials> own_credentials();

}  // namespace migrate
