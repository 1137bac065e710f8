#pragma once

#include "base/result.h"
#include "base/unique_fd.h"
#include "libmigrate/capture/frozen_process.h"

namespace migrate {

/// A userfaultfd of the frozen process's memory, in user mode only, made by the process itself and
/// taken from it: it has none when this returns. Needs frozen.open_area(). If the tracer dies in
/// the microseconds between, the process keeps a descriptor that does nothing. Thread: the tracer.
/// Errors: kUnsupported (the kernel), kRefused (it has as many descriptors as it may have),
/// kSystem.
Result<UniqueFd> borrow_userfault(const FrozenProcess& frozen);

}  // namespace migrate
