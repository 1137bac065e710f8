#include "pager/arrival_trace.h"

#include <chrono>

namespace migrate {
namespace {

// Neighbours that come within that time are one run.
constexpr std::int64_t kTogetherUs = 1000;

std::int64_t wall_clock_us() {
  return std::chrono::duration_cast<std::chrono::microseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

}  // namespace

std::string_view to_string(ArrivalWay way) {
  switch (way) {
    case ArrivalWay::kFault:
      return "fault";
    case ArrivalWay::kPrefetch:
      return "prefetch";
    case ArrivalWay::kPush:
      return "push";
    case ArrivalWay::kLocal:
      return "local";
    case ArrivalWay::kZero:
      return "zero";
    case ArrivalWay::kStaged:
      return "staged";
    case ArrivalWay::kStarter:
      return "starter";
    case ArrivalWay::kNever:
      return "never";
  }
  return "";
}

void ArrivalTrace::note(ArrivalWay way, PageRange pages) {
  if (most_ > 0) {
    note(way, pages, wall_clock_us());
  }
}

void ArrivalTrace::note(ArrivalWay way, PageRange pages, std::int64_t at_us) {
  if (most_ == 0 || pages.empty()) {
    return;
  }
  if (!all_.empty()) {
    PageArrival& last = all_.back();
    if (last.way == way && last.pages.end() == pages.start && at_us - last.at_us < kTogetherUs) {
      last.pages.page_count += pages.page_count;
      return;
    }
  }
  if (all_.size() >= most_) {
    left_out_ += pages.page_count;
    return;
  }
  all_.push_back({at_us, pages, way});
}

}  // namespace migrate
