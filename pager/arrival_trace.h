#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "pager/page_range.h"

namespace migrate {

/// How a page of a moved process came to be there.
enum class ArrivalWay : std::uint8_t {
  kFault,     ///< A thread waited for it.
  kPrefetch,  ///< It was asked for beside a faulting page.
  kPush,      ///< The source sent it unasked.
  kLocal,     ///< From the destination's own file.
  kZero,      ///< Filled with zeros.
  kStaged,    ///< It came before the process was frozen.
  kStarter,   ///< It came with the image.
  kNever,     ///< It did not exist at the source, and nobody has touched it yet.
};
/// As a trace is written: "fault", "prefetch" ...
std::string_view to_string(ArrivalWay way);

/// Pages that came in the same way at about the same time.
struct PageArrival {
  std::int64_t at_us = 0;  ///< CLOCK_REALTIME, of the first of them.
  PageRange pages;         ///< At the destination.
  ArrivalWay way = ArrivalWay::kFault;
};

/// When and how pages came, as far as there is room for it: what comes once that is full is only
/// counted. Not synchronised.
class ArrivalTrace {
 public:
  /// `most` runs; 0: nothing is noted.
  explicit ArrivalTrace(std::size_t most) : most_(most) { all_.reserve(most); }

  void note(ArrivalWay way, PageRange pages, std::int64_t at_us);
  void note(ArrivalWay way, PageRange pages);

  const std::vector<PageArrival>& all() const { return all_; }
  /// Pages that there was no room for.
  std::uint64_t left_out() const { return left_out_; }

 private:
  std::size_t most_;
  std::vector<PageArrival> all_;
  std::uint64_t left_out_ = 0;
};

}  // namespace migrate
