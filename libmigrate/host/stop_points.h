#pragma once

#include <string>

namespace migrate {

/// Lets tests halt a worker at a named step of the protocol (docs/protocol.md lists them), to kill
/// it there. Without a directory, which only the daemon's option --debug-stops gives, nothing ever
/// stops. A value; any thread.
class StopPoints {
 public:
  StopPoints() = default;
  explicit StopPoints(std::string directory) : directory_(std::move(directory)) {}

  /// If the directory holds a file named `step`: renames it to `step`.PID and stops this process
  /// (SIGSTOP) until someone lets it go on or kills it. One system call where it is not to stop.
  void reach(const char* step) const;

 private:
  std::string directory_;
};

}  // namespace migrate
