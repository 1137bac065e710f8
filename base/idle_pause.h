#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>

namespace migrate {

/// How long to sleep between looks at something that moves on by itself: shortly while it does,
/// each time twice as long while it does not, so that many who wait for little cost little. A value
/// type.
class IdlePause {
 public:
  /// In milliseconds; `shortest` is at least 1.
  IdlePause(int shortest_ms, int longest_ms) : shortest_ms_(shortest_ms), longest_ms_(longest_ms) {}

  /// For the next look. `seen`: how far it had come when it was looked at now.
  int next_ms(std::uint64_t seen) {
    pause_ms_ = seen_ == seen ? std::min(2 * pause_ms_, longest_ms_) : shortest_ms_;
    seen_ = seen;
    return pause_ms_;
  }

 private:
  int shortest_ms_;
  int longest_ms_;
  int pause_ms_ = 0;
  std::optional<std::uint64_t> seen_;
};

}  // namespace migrate
