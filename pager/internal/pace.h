#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <optional>

namespace migrate {

/// How fast a page server pushes: within a limit, but as fast as it must be to have pushed all by a
/// deadline. Owned by one thread.
class Pace {
 public:
  using Clock = std::chrono::steady_clock;

  /// `bytes_per_second`: 0 for no limit. `deadline`: since the first call of wait_for(); 0: none.
  Pace(std::uint64_t bytes_per_second, std::chrono::milliseconds deadline)
      : limit_(static_cast<double>(bytes_per_second)), deadline_(deadline) {}

  /// How long to wait before sending more, when `owed_bytes` are still to be sent.
  Clock::duration wait_for(Clock::time_point now, std::uint64_t owed_bytes) {
    if (deadline_.count() > 0 && !end_) {
      end_ = now + deadline_;
    }
    rate_ = limit_;
    if (end_) {
      // What is in flight must arrive too, so that some of the time is kept back.
      constexpr double kUsedPart = 0.8;
      const double left = kUsedPart * std::chrono::duration<double>(*end_ - now).count();
      rate_ = left > 0 ? std::max(rate_, static_cast<double>(owed_bytes) / left) : 0;
    }
    return rate_ > 0 ? std::max(next_ - now, Clock::duration::zero()) : Clock::duration::zero();
  }

  /// So many bytes were sent.
  void sent(Clock::time_point now, std::uint64_t bytes) {
    if (rate_ > 0) {
      // Who woke late catches up a little.
      constexpr std::chrono::milliseconds kSlack{20};
      next_ = std::max(next_, now - kSlack) +
              std::chrono::duration_cast<Clock::duration>(
                  std::chrono::duration<double>(static_cast<double>(bytes) / rate_));
    }
  }

 private:
  double limit_;
  std::chrono::milliseconds deadline_;
  std::optional<Clock::time_point> end_;
  double rate_ = 0;  // bytes a second, of now; 0: as fast as can be
  Clock::time_point next_{};
};

}  // namespace migrate
