#pragma once

#include <sys/types.h>

#include <chrono>
#include <functional>

#include "base/result.h"

namespace migrate {

/// Waits, while `process` runs on, for a moment in which it has no children, for `longest` at most:
/// one that starts programs all the time had none when it was inspected, and would have one again
/// in most freezes that do not choose their moment. Whether it has one is judged in the freeze.
/// Errors: those of `still_wanted`, which is asked every few milliseconds.
Result<void> await_childless_moment(pid_t process, std::chrono::milliseconds longest,
                                    const std::function<Result<void>()>& still_wanted);

}  // namespace migrate
