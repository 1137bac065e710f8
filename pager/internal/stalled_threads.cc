#include "pager/internal/stalled_threads.h"

namespace migrate {

std::uint64_t StalledThreads::settle(const PageMap& map) {
  if (waits_.empty()) {
    return 0;
  }
  std::chrono::nanoseconds ended{0};
  const Clock::time_point now = Clock::now();
  std::erase_if(waits_, [&](const Wait& wait) {
    if (map.state(wait.source_address) == PageState::kRequested) {
      return false;
    }
    ended += now - wait.start;
    return true;
  });
  return static_cast<std::uint64_t>(ended.count());
}

}  // namespace migrate
