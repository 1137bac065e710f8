#pragma once

#include <array>
#include <chrono>
#include <cstddef>

namespace migrate {

/// Finds by trial which of a few ways to do something costs least, and goes on trying now and then
/// whether that has changed. What counts is what it costs whoever it is done for: he notes each
/// time how long it took. Ways are compared by the medians of many times, so that single late ones
/// do not matter. A value type; constant memory.
class CheaperWay {
 public:
  static constexpr std::size_t kMostWays = 4;

  /// Ways 0 to `count` - 1 (at most kMostWays), of which the first is tried first.
  explicit CheaperWay(std::size_t count) : count_(count) {}

  /// To be done now.
  std::size_t way() const { return way_; }
  /// Done that way, it took so long.
  void note(std::chrono::nanoseconds took);

 private:
  static constexpr std::size_t kTimes = 25;  // of one trial
  static constexpr int kFirstPause = 8;      // trials of the best way between those of others
  static constexpr int kLongestPause = 128;

  void end_trial();

  std::size_t count_;
  std::size_t way_ = 0;
  std::size_t best_ = 0;
  std::size_t next_ = 0;  // to be tried, after the pause
  int pause_ = kFirstPause;
  int left_ = 0;                                            // of the present pause
  std::array<std::chrono::nanoseconds, kMostWays> cost_{};  // 0: not known
  std::array<std::chrono::nanoseconds, kTimes> times_{};
  std::size_t time_count_ = 0;
};

}  // namespace migrate
