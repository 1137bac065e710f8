#pragma once

#include <sched.h>
#include <unistd.h>

#include <atomic>

namespace migrate::client {

/// A lock of this process for some instructions that call nothing of others. In a child (fork),
/// that of a thread which is not there is the next one's. `holder` is the pid that has it, 0: none.
class Turn {
 public:
  explicit Turn(std::atomic<pid_t>& holder) : holder_(holder) { take(holder_); }
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;
  ~Turn() { leave(holder_); }

  static void take(std::atomic<pid_t>& holder) {
    const pid_t self = ::getpid();
    for (pid_t now = 0; !holder.compare_exchange_weak(now, self, std::memory_order_acquire);) {
      if (now == self) {
        ::sched_yield();
        now = 0;
      }
    }
  }
  static void leave(std::atomic<pid_t>& holder) { holder.store(0, std::memory_order_release); }

 private:
  std::atomic<pid_t>& holder_;
};

}  // namespace migrate::client
