#pragma once

#include <cstddef>
#include <map>
#include <optional>
#include <set>
#include <utility>

namespace migrate::client {

/// Which bytes of a range are free, and which belong together: the smallest free piece that is
/// large enough is taken, and what is given back is joined with its neighbours. Knows offsets, no
/// memory. Time is logarithmic. Not thread-safe.
class FreeRanges {
 public:
  struct Range {
    std::size_t start = 0;
    std::size_t end = 0;
  };

  explicit FreeRanges(std::size_t bytes) { add({0, bytes}); }

  /// The start of `bytes` bytes, more than none, at a multiple of `alignment`, a power of two.
  /// Nothing: there are none.
  std::optional<std::size_t> take(std::size_t bytes, std::size_t alignment);
  /// Gives back what begins there, and returns the free range that it is in now. Nothing: it was
  /// not taken.
  std::optional<Range> give(std::size_t start);

 private:
  void add(Range range);
  void remove(Range range);

  std::map<std::size_t, std::size_t> free_;                   // by start: end
  std::set<std::pair<std::size_t, std::size_t>> free_sizes_;  // size, start
  std::map<std::size_t, std::size_t> taken_;                  // by start: end
};

}  // namespace migrate::client
