#pragma once

#include <chrono>
#include <cstdint>
#include <span>

#include "base/result.h"
#include "transport/channel.h"

namespace migrate {

/// A point in time to give up at, or never. A value type.
class Deadline {
 public:
  /// `timeout_ms` from now; < 0: never.
  explicit Deadline(int timeout_ms);

  /// What is left, in milliseconds rounded up; -1 for never, 0 once passed. Fits poll().
  int remaining_ms() const;

 private:
  bool never_;
  std::chrono::steady_clock::time_point at_;
};

/// Waits until `fd` polls one of `events` (or an error or hang-up). Yields the events that are
/// there, 0 once `deadline` has passed. Blocks. Errors: kSystem.
Result<short> wait_for(int fd, short events, const Deadline& deadline);

/// receive() of any channel in terms of its try_receive(), arm() and poll_fd(): yields the CPU
/// between attempts for `spin_us`, then sleeps; sleeps at once where there is one processor.
Result<std::span<const std::byte>> receive_by_polling(Channel& channel, std::uint32_t spin_us,
                                                      int timeout_ms);

}  // namespace migrate
