#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "pager/page_map.h"

namespace migrate {

/// Adds up for how long threads of one address space waited for pages that the source was asked
/// for. Owned by its address space's lock.
class StalledThreads {
 public:
  using Clock = std::chrono::steady_clock;

  /// Of more threads than this that wait at once, the time of the others is not known.
  static constexpr std::size_t kMost = 256;

  /// A thread waits for the page at `source_address`, which is kRequested.
  void note_fault(std::uint64_t source_address, Clock::time_point start) {
    if (waits_.size() < kMost) {
      waits_.push_back({source_address, start});
    }
  }
  /// Nanoseconds of the waits that have ended since the last call: their pages came, or are not to
  /// come any more.
  std::uint64_t settle(const PageMap& map);

 private:
  struct Wait {
    std::uint64_t source_address;
    Clock::time_point start;
  };

  std::vector<Wait> waits_;
};

}  // namespace migrate
