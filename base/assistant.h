#pragma once

#include <functional>
#include <memory>
#include <semaphore>
#include <thread>

#include "base/result.h"

namespace migrate {

/// A second thread for the few milliseconds in which a process stands still, made before them:
/// starting a thread takes 50 us. Runs as RealtimeScope does. Owned and called by one thread.
class Assistant {
 public:
  /// Errors: kSystem (no more threads).
  static Result<std::unique_ptr<Assistant>> create();
  ~Assistant();
  Assistant(const Assistant&) = delete;
  Assistant& operator=(const Assistant&) = delete;

  /// Runs `job` in the other thread. The last one must have been waited for.
  void start(std::function<void()> job);
  /// Returns when the job is done.
  void wait();

 private:
  Assistant() = default;
  void work();

  std::function<void()> job_;  // None: end.
  std::binary_semaphore begin_{0};
  std::binary_semaphore done_{0};
  std::thread thread_;
};

}  // namespace migrate
