#pragma once

#include <signal.h>
#include <sys/types.h>

#include <string>
#include <vector>

#include "base/result.h"
#include "tools/migratectl/start_guard.h"

namespace migrate {

struct StartedProgram {
  pid_t pid = 0;
  StartGuard guard;  ///< Until the program is seen to by others.
};

/// Starts a program as a child, and stops it before its own first instruction: its libraries are
/// loaded, as it asks for them, and have been initialised. There it is in a job control stop
/// (SIGSTOP), traced by nobody, with the descriptors, the group and the terminal of the caller.
/// It blocks the signals of `signal_mask`; the caller blocks those that would end him, until he
/// sees to the child's end, too. What is set-user-id gains nothing by that, as under a debugger.
/// If the caller ends, even by SIGKILL, so does it. Waits for as long as the loading takes. Errors:
/// kNotFound (no such program), kSystem (it cannot be executed), kRefused (it ended before it
/// began; the remedy says how).
Result<StartedProgram> start_stopped(const std::vector<std::string>& command,
                                     const sigset_t& signal_mask);

}  // namespace migrate
