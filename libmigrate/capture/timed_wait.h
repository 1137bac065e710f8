#pragma once

#include <sys/types.h>

#include <array>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "base/result.h"
#include "libmigrate/arch/arch.h"
#include "libmigrate/capture/frozen_process.h"
#include "libmigrate/proto/image.pb.h"

namespace migrate {

/// A system call with a relative timeout in which a thread came here. With it, a wait that is moved
/// more than once ends when it should, not a whole timeout after the last move.
struct WaitRecord {
  std::uint32_t thread = 0;
  std::int64_t number = -1;
  std::array<std::uint64_t, 6> arguments{};
  std::int64_t deadline_ns = 0;  ///< CLOCK_MONOTONIC of this host.
  std::int64_t let_go_ns = 0;    ///< The same: when the thread was.
  std::uint64_t switches = 0;    ///< Its voluntary context switches then.
};

/// Where the kernel writes what is left of an interrupted sleep, a timespec; 0: nowhere.
std::uint64_t remaining_address(const arch::InterruptedCall& call);

/// The relative timeout of `call` in nanoseconds; none for calls that do not time out, do so at an
/// absolute time, or whose remaining time the kernel itself gives back to the caller.
Result<std::optional<std::uint64_t>> relative_timeout(pid_t process,
                                                      const arch::InterruptedCall& call);

/// How much of the timeout of `call` is left, at least 0; none as for relative_timeout(). Taken
/// from what the kernel wrote for the caller, or from the record of a wait that goes on since the
/// thread came here; else, since nothing tells when the call began, the whole timeout. `now_ns` is
/// of CLOCK_MONOTONIC.
Result<std::optional<std::uint64_t>> remaining_wait(pid_t process, std::uint32_t thread,
                                                    const arch::InterruptedCall& call,
                                                    const std::vector<WaitRecord>& records,
                                                    std::int64_t now_ns);

/// Those of `records` whose threads have done nothing since but wait. Ask right after the freeze: a
/// script in a thread counts as something.
std::vector<WaitRecord> waits_that_go_on(const FrozenProcess& frozen,
                                         const std::vector<WaitRecord>& records);

/// Memory that the kernel reads when `call`, a wait, is repeated: address and length in bytes, 0
/// for what is not there. A thread that waited for a page of it would look as if it had gone on.
std::vector<std::pair<std::uint64_t, std::uint64_t>> memory_of_wait(
    const arch::InterruptedCall& call);

/// What `call` returns when its time is over.
std::int64_t timeout_result(std::int64_t number);

/// Of each thread of a frozen process that waits: call right before it is thawed, when no script
/// will run any more. `known`: what goes on since earlier (waits_that_go_on()).
std::vector<WaitRecord> record_waits(const FrozenProcess& frozen,
                                     const std::vector<WaitRecord>& known);

/// Of each thread of `image` that waits: call right before the threads are let go. `host_threads`
/// in the image's order.
std::vector<WaitRecord> record_waits(const wire::ProcessImage& image,
                                     const std::vector<pid_t>& host_threads);

}  // namespace migrate
