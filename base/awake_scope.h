#pragma once

#include <atomic>
#include <memory>
#include <thread>

#include "base/result.h"

namespace migrate {

/// Keeps one processor of this host from falling asleep while it lives, but for 50 ms at most: a
/// thread that does nothing, at the lowest priority (SCHED_IDLE), so that whatever wakes up there
/// runs at once. A processor of a virtual machine that sleeps takes 50 to 100 us to wake up, which
/// a freeze of a millisecond would pay at each of its dozen hand-overs from tracer to traced and
/// back.
class AwakeScope {
 public:
  /// Errors: kSystem (no more threads).
  static Result<std::unique_ptr<AwakeScope>> create();
  ~AwakeScope();
  AwakeScope(const AwakeScope&) = delete;
  AwakeScope& operator=(const AwakeScope&) = delete;

 private:
  AwakeScope() = default;

  std::atomic<bool> end_ = false;
  std::thread thread_;
};

}  // namespace migrate
