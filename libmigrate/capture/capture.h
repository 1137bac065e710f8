#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "libmigrate/capture/frozen_process.h"
#include "libmigrate/capture/timed_wait.h"
#include "libmigrate/image/refusal.h"
#include "libmigrate/proto/image.pb.h"

namespace migrate {

/// Fills into `image` what only the frozen process itself can tell: registers, signal state, stacks
/// for signals, rseq, robust lists, timers, break. `image` already holds what /proc tells of the
/// process and its threads (see ProcessInspector::Meanwhile). Needs frozen.open_area() and changes
/// nothing that the process could see. Adds to `refusals` what cannot be carried and is seen from
/// inside only. Thread: the tracer. Errors: kRetry (its threads changed), kSystem. `waits`: of the
/// threads when they came to this host.
Result<void> capture_state(FrozenProcess& frozen, const std::vector<WaitRecord>& waits,
                           wire::ProcessImage& image, Refusals& refusals);

/// Adds the threads of a frozen process in which no script can run: before open_area().
void check_scripts_can_run(const FrozenProcess& frozen, Refusals& refusals);

/// The pages that must be there before the process runs, because the kernel touches them where it
/// does not wait for a userfaultfd: rseq areas, robust lists and what is cleared when a thread ends
/// (handle_userfault() gives up for an exiting thread), futexes that are waited for
/// (fault_in_user_writeable()), what a poll() goes on with, where what is left of a sleep is
/// written, and the arguments that
/// /proc/PID/cmdline shows.
Result<void> capture_starter_pages(const FrozenProcess& frozen, wire::ProcessImage& image);

}  // namespace migrate
