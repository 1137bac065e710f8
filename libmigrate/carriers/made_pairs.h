#pragma once

#include "base/unique_fd.h"

namespace migrate::carriers {

// Objects with two ends, each of which may be several open files: made anew once, for the first.

/// Both ends of a pipe that was made anew.
struct MadePipe {
  UniqueFd reader;
  UniqueFd writer;
  bool reader_given = false;  ///< The process has this very open file.
  bool writer_given = false;
};

/// Both sides of a pseudo-terminal that was made anew, until the process has them.
struct MadeTerminalPair {
  UniqueFd master;
  UniqueFd slave;
  bool is_made = false;
  bool is_given = false;  ///< The process has the master.
};

/// Both ends of a pair of Unix domain sockets that was made anew, until the process has them.
struct MadeSocketPair {
  UniqueFd first;
  UniqueFd second;
  bool is_filled = false;  ///< What waited in it is in it.
};

}  // namespace migrate::carriers
