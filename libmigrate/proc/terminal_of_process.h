#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"

namespace migrate {

/// The terminal of a process's session, and what the process has of it.
struct TerminalOfProcess {
  std::uint64_t device = 0;  ///< st_rdev; 0: it has none.
  bool leads_session = false;
  bool in_foreground = false;  ///< Its group is that which gets the input.
};

/// `directory`: that of a process in /proc, or one in it. `path`: of its file "stat" from there.
/// Errors: kNotFound, kCorrupt, kSystem.
Result<TerminalOfProcess> read_terminal_of_process(int directory, const std::string& path);

}  // namespace migrate
