#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/result.h"
#include "libmigrate/requests/requests.h"

namespace migrate {

/// Exit status of `run` whose program was not started, whatever the reason; env(1), nohup(1) and
/// timeout(1) have the same.
inline constexpr int kNotStarted = 125;

/// A program that is to run elsewhere.
struct RunOptions {
  std::string socket;
  std::vector<std::string> command;
  std::string report;  ///< A file that gets the result, as JSON, at the end; empty: none.
};

/// Starts the program, moves it before its first instruction, and waits until it has ended. If its
/// destination is this host, it runs here. Returns its exit status, or ends as it has ended, by a
/// signal; 125 if it was not moved, 126 if it cannot be executed, 127 if there is none. Whoever
/// reads standard error is told why.
int run_elsewhere(const RunOptions& options, MoveRequest move);

/// The answer to a `check`, an object that has `exit`, of a program that is started for that alone
/// and ended before its first instruction. Errors: as start_stopped() and DaemonConnection.
Result<nlohmann::json> inspect_program(const RunOptions& options, CheckRequest check);

}  // namespace migrate
