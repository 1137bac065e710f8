#pragma once

#include <chrono>
#include <cstddef>

#include "base/cheaper_way.h"
#include "base/polling.h"

namespace migrate {

/// How the fault thread waits for answers and for the next fault: whether it polls, and for how
/// long. Polling answers soonest where a processor is free for it; else it keeps the thread that it
/// serves from going on. So what decides is how long threads take from one fault to the next
/// (docs/decisions/0044). Owned by the fault thread.
class FaultWaiting {
 public:
  using Clock = std::chrono::steady_clock;

  /// Polls for `most` at most; 0: never.
  explicit FaultWaiting(std::chrono::microseconds most);

  /// A thread waits for a page from now on.
  void note_fault(Clock::time_point now);
  /// What was waited for has come, or some of it.
  void note_activity();
  /// Nothing has come. Whether to sleep until something does, and not to look again at once.
  bool sleeps(Clock::time_point now, bool for_answer);

 private:
  // Ways; the first is to poll for both.
  static constexpr std::size_t kPollForAnswers = 1;
  static constexpr std::size_t kSleep = 2;
  static constexpr std::size_t kWays = 3;

  Polling for_answers_;
  Polling for_faults_;
  Polling* waiting_ = nullptr;
  // Asleep until the first fault: the process is still being restored, and needs the processor.
  bool asleep_ = true;
  Clock::time_point since_{};
  Clock::time_point last_fault_{};
  CheaperWay ways_;
};

}  // namespace migrate
