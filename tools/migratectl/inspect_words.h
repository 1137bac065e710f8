#pragma once

#include <string>
#include <vector>

#include "base/result.h"

namespace migrate {

/// Whether a word of the command line can be but a pid.
bool is_pid(const std::string& word);

/// What follows a command is its own. Where that looks like options of inspect's, it is asked for:
/// nothing would tell that they were not heeded. Whoever means the command's writes -- before it.
/// Errors: kInvalid.
Result<void> check_own_options(const std::vector<std::string>& program, int argc,
                               const char* const* argv);

/// The words of the command line with the pid at the end, last first, as CLI11 takes them: options
/// that follow a pid, which has none of its own, are heeded as those before it.
std::vector<std::string> pid_last(int argc, const char* const* argv, const std::string& pid);

}  // namespace migrate
