#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"

namespace migrate {

/// SIGINT and SIGTERM, which end nothing from here on but are asked for. One for a process; its
/// children get both again.
class StopSignals {
 public:
  /// Errors: kSystem.
  static Result<StopSignals> take();

  /// Whether one came, at once or within that time.
  bool came(std::chrono::milliseconds within = {});
  int descriptor() const { return signals_.get(); }

 private:
  explicit StopSignals(UniqueFd signals) : signals_(std::move(signals)) {}

  UniqueFd signals_;
  bool came_ = false;
};

/// What is wrong with the name of a host or job that is written into a command, of ssh among
/// others: only letters, digits and ._- are such that no shell takes them for something else.
/// Empty: nothing.
std::string plain_name_problem(const std::string& word);
/// The same of HOST or HOST:PORT.
std::string plain_address_problem(const std::string& word);

using Command = std::vector<std::string>;

/// What a command came to.
struct Ended {
  int status = 0;      ///< As a shell has it: 128 and the number of the signal; 127: not executed.
  std::string output;  ///< Its standard output; what it says on standard error is seen by people.
};

/// What a signal does while commands run.
enum class OnStop { kEndThem, kWaitForThem };

/// Runs commands at the same time, to their end, each in a process group of its own, so that an
/// interrupt of a terminal is not theirs. Blocks.
std::vector<Ended> run_commands(const std::vector<Command>& commands, StopSignals& stop,
                                OnStop on_stop);

// What both kinds of commands are made of.

inline constexpr int kCommandNotStarted = 127;
/// Starts one with these descriptors as its standard input and output, in a process group of its
/// own, its signals as they are in a program that nobody has changed them for. Its pid; -1: it
/// could not be started.
int start_command(const Command& command, int input, int output);
/// Waits for its end. For -1: kCommandNotStarted.
int status_of_command(int pid);
/// Appends what can be read. False at its end.
bool read_more(int from, std::string& text);

}  // namespace migrate
