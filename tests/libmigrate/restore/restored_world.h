#pragma once

#include <gtest/gtest.h>
#include <sys/types.h>

#include <functional>
#include <optional>
#include <string>

#include "base/unique_fd.h"
#include "tests/libmigrate/inspect/held_process.h"
#include "tests/libmigrate/restore/restored_process.h"

namespace migrate::test {

/// A process, and what it is after a move from this host into a cell of it. Both are looked at by
/// what /proc shows.
class RestoredTest : public testing::Test {
 protected:
  void SetUp() override;

  /// Begins a process that counts SIGUSR1 and SIGUSR2, runs `prepare`, and waits for signals.
  void start(const std::function<void()>& prepare = [] {});
  /// Fails the test if it cannot be restored.
  void move(const RestoredProcess::Options& options = {});
  /// The error of restoring it, which must fail; the process here runs on.
  Error move_that_fails(const RestoredProcess::Options& options);

  pid_t here() const { return process_->pid(); }
  pid_t there() const { return restored_->pid(); }
  /// Captures it once more: the image must be that which it was restored from.
  void expect_same_image();
  /// A file of /proc/PID that must be the same for both.
  void expect_same_text(const std::string& name);
  /// The line of its status.
  static std::string status(pid_t process, const std::string& key);
  void expect_same_status(std::initializer_list<const char*> keys);
  void expect_answer();
  /// Waits until all threads of `process` wait for signals.
  static void expect_rest(pid_t process);
  /// A descriptor of the restored process.
  UniqueFd fetch(int number) const;

  std::optional<HeldProcess> process_;
  std::optional<RestoredProcess> restored_;
};

}  // namespace migrate::test
