#pragma once

#include <cstddef>

namespace migrate::balance {

/// What a move takes from its job, as the last moves told.
struct MoveCosts {
  double stop_s = 0.005;     ///< The rank stands still.
  double bytes_per_s = 1e9;  ///< Its memory follows so fast.
  double slowdown = 0.1;     ///< So much of its speed it lacks meanwhile.

  /// Seconds until memory of that size is there.
  double transfer_s(double memory_bytes) const { return memory_bytes / bytes_per_s; }
  /// Seconds that a rank with so much memory falls behind.
  double seconds(double memory_bytes) const { return stop_s + slowdown * transfer_s(memory_bytes); }
};

/// What a move came to.
struct MeasuredMove {
  double memory_bytes = 0;  ///< Resident before it.
  double stop_s = 0;
  double transfer_s = 0;  ///< From its running there until nothing was owed.
};

/// Averages what moves came to, the newest with most weight, since hosts and links change. Owned by
/// one thread.
class LearnedCosts {
 public:
  void add(const MeasuredMove& move);
  const MoveCosts& costs() const { return costs_; }

 private:
  MoveCosts costs_;
  std::size_t moves_ = 0;
};

}  // namespace migrate::balance
