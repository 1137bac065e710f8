#pragma once

#include <chrono>

namespace migrate {

/// How long to poll for something before sleeping, learned from how it went, as KVM learns it for a
/// processor that halts (Documentation/virt/kvm/halt-polling.rst): where polling brings what is
/// waited for, poll for as long as allowed; where it was in vain, sleep at once for a while and try
/// again. Who polls in vain may well keep the processor from the one it waits for: sched_yield()
/// lets only threads of the same session run where the kernel groups tasks by session
/// (CONFIG_SCHED_AUTOGROUP). A value type.
class Polling {
 public:
  /// Polls for `most` at most; 0: never.
  explicit Polling(std::chrono::microseconds most);

  /// How long to poll now; 0: sleep at once.
  std::chrono::microseconds limit() const { return limit_; }

  /// To be called once for each wait: whether it ended while polling, or in sleep.
  void note(bool while_polling);

 private:
  std::chrono::microseconds most_;
  std::chrono::microseconds trial_;
  std::chrono::microseconds limit_;
  int pause_;     // waits without polling after the next one in vain
  int left_ = 0;  // of the present pause
};

}  // namespace migrate
