#pragma once

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <set>
#include <string>

#include "libmigrate/park/parked_process.h"
#include "libmigrate/trace/script.h"
#include "tests/libmigrate/capture/captured_process.h"
#include "tests/libmigrate/capture/dying_worker.h"
#include "tests/libmigrate/inspect/held_process.h"

namespace migrate::test {

/// A process that a test parks, and looks at from outside. It counts the signals that it handles.
class ParkTest : public testing::Test {
 protected:
  void SetUp() override;

  /// Begins a process, which runs `prepare` and then waits for signals.
  void start(const std::function<void()>& prepare = [] {});
  pid_t pid() const { return process_->pid(); }

  void capture();
  Result<void> write_record();
  /// After capture().
  Result<void> park();
  Result<void> unpark() { return parked_->unpark(captured_->process()); }
  void capture_and_park();
  /// Lets the leader of the parked process run in its loop: park() leaves it stopped.
  void let_it_loop();

  /// How often the process has handled a signal.
  int handled(int signal) const { return counted(pid(), signal); }
  /// Sends a signal, and waits until it was handled: then it has handled those before it, too.
  void expect_answer();
  /// Waits until all its threads wait for signals.
  void expect_rest() const;
  /// The next signal that the parked leader tells of; 0: none came.
  siginfo_t next_signal() const;
  /// Runs a script in the parked leader, as the tracer may.
  void ask_leader(const std::function<void(Script&)>& build,
                  const std::function<void(const Script&)>& read = nullptr);

  /// What /proc shows of the process that parking must leave as it was.
  std::string facts() const;
  std::set<std::uint32_t> descriptors(pid_t of) const;
  bool is_traced() const;
  bool is_stopped() const;
  int byte_at(pid_t of, const void* place) const;

  SessionId session_{};
  std::optional<HeldProcess> process_;
  std::optional<CapturedProcess> captured_;
  std::optional<ParkedProcess> parked_;
};

}  // namespace migrate::test
