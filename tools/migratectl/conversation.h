#pragma once

#include <string>
#include <utility>

#include "base/unique_fd.h"
#include "tools/migratectl/commands.h"

namespace migrate {

/// A command that answers each line that it gets with one of its own, and goes on running
/// meanwhile. It is started with the first question, and anew when it has ended. Owned by one
/// thread; ends it at last.
class Conversation {
 public:
  explicit Conversation(Command command) : command_(std::move(command)) {}
  ~Conversation();
  Conversation(const Conversation&) = delete;
  Conversation& operator=(const Conversation&) = delete;

  /// Asks, and waits for the answer, without the end of its line. When a signal comes the command
  /// is ended, and the answer is empty. If it ends by itself, the status is its own.
  Ended ask(StopSignals& stop);

 private:
  bool start();
  /// Its status.
  int end(int signal);

  Command command_;
  int pid_ = -1;
  UniqueFd ours_;  // of what it reads and writes
  std::string said_;
};

}  // namespace migrate
