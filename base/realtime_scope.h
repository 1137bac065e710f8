#pragma once

namespace migrate {

/// While it lives, the calling thread runs before all ordinary ones of its host: policy SCHED_FIFO
/// at the lowest level. For the few milliseconds in which a process stands still, not for work
/// whose length a peer decides. Threads and processes made meanwhile are ordinary ones. Without the
/// permission (CAP_SYS_NICE) it does nothing, and the thread is as it was. Ends in the thread that
/// made it.
class RealtimeScope {
 public:
  RealtimeScope();
  ~RealtimeScope();
  RealtimeScope(const RealtimeScope&) = delete;
  RealtimeScope& operator=(const RealtimeScope&) = delete;

 private:
  bool raised_ = false;
};

}  // namespace migrate
