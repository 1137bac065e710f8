#include "libmigrate/balance/move_costs.h"

#include <algorithm>

namespace migrate::balance {

void LearnedCosts::add(const MeasuredMove& move) {
  constexpr double kNewestMove = 0.3;
  constexpr double kShortest = 1e-4;  // Of a transfer: a clock shows no less.
  ++moves_;
  // The first count alike, whatever was assumed before them.
  const double weight = std::max(kNewestMove, 1.0 / static_cast<double>(moves_));
  costs_.stop_s += weight * (move.stop_s - costs_.stop_s);
  if (move.memory_bytes > 0) {
    // Averaged is the time of a byte: so a slow move counts as much as a fast one.
    const double of_byte_s = std::max(move.transfer_s, kShortest) / move.memory_bytes;
    const double before_s = 1 / costs_.bytes_per_s;
    costs_.bytes_per_s = 1 / (before_s + weight * (of_byte_s - before_s));
  }
}

}  // namespace migrate::balance
