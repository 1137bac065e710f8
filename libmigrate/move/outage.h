#pragma once

#include <cstdint>
#include <string>

namespace migrate {

/// A time in which nothing is heard of a destination: for what is waited, since when, and when the
/// next connection is to be tried. Attempts come at growing intervals: 50 ms after the connection
/// was lost, then from 100 ms on twice as long each time, up to 5 s. Times are in microseconds of
/// any clock that only grows. A value.
class Outage {
 public:
  /// `reason` is what is waited for from now on. One that goes on keeps its times.
  void begin(std::string reason, std::int64_t now_us);
  /// All is well again.
  void end() { reason_.clear(); }

  /// Empty while all is well.
  const std::string& reason() const { return reason_; }
  /// When the last one began.
  std::int64_t since_us() const { return since_us_; }

  bool attempt_is_due(std::int64_t now_us) const { return now_us >= next_us_; }
  /// A connection is being tried now.
  void note_attempt(std::int64_t now_us);

 private:
  std::string reason_;
  std::int64_t since_us_ = 0;
  std::int64_t next_us_ = 0;
  std::int64_t pause_us_ = 0;  // between the next attempt and the one after it
};

}  // namespace migrate
