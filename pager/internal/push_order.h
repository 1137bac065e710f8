#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "pager/page_range.h"

namespace migrate {

/// Where a push goes on, by what was asked for: threads that walk through memory fault where the
/// push has not been, and it goes ahead of each of them in turn, in the direction of its walk. What
/// nobody asks for any more is left to the order of addresses. Constant memory and time. Owned by
/// its user's lock.
class PushOrder {
 public:
  /// Pages that were asked for.
  void note_request(PageRange range);

  /// The next batch of `bytes` is to begin there; nothing: where the last one ended.
  std::optional<std::uint64_t> next(std::uint64_t bytes);

 private:
  static constexpr std::size_t kTrails = 8;

  /// A walk, as far as it is known.
  struct Trail {
    std::uint64_t low = 0;  // what was asked for and pushed of it lies in [low, high)
    std::uint64_t high = 0;
    bool down = false;
    std::uint32_t batches = 0;  // that may follow before it is asked again for something of it
  };

  std::array<Trail, kTrails> trails_{};
  std::size_t turn_ = 0;    // whose batch is next
  std::size_t newest_ = 0;  // a new trail takes the place of the one after it
};

}  // namespace migrate
