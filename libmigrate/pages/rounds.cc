#include "libmigrate/pages/rounds.h"

#include <algorithm>

#include "pager/page_range.h"

namespace migrate {
namespace {

double per_second(std::uint64_t bytes, std::int64_t took_us) {
  return static_cast<double>(bytes) * 1e6 / static_cast<double>(std::max<std::int64_t>(took_us, 1));
}

}  // namespace

std::string_view to_string(RoundsEnd end) {
  switch (end) {
    case RoundsEnd::kDowntime:
      return "downtime";
    case RoundsEnd::kMost:
      return "rounds";
    case RoundsEnd::kDirtyRate:
      return "dirty_rate";
  }
  return "";
}

double Rounds::dirty_rate() const {
  return all_.empty() ? 0 : per_second(all_.back().written_pages * kPageBytes, all_.back().took_us);
}

double Rounds::send_rate() const {
  std::uint64_t bytes = 0;
  std::int64_t took_us = 0;
  for (const Round& round : all_) {
    bytes += round.sent_bytes;
    took_us += round.took_us;
  }
  return per_second(bytes, took_us);
}

// Pages of the same time, not rates: whoever writes all that he ever writes while it is sent has
// written as much as that and no more, and which is larger then is chance. Less than a tenth fewer
// is no way to get to an end.
bool Rounds::gets_nowhere() const {
  const Round& last = all_.back();
  return last.written_pages * 10 >= last.sent_pages * 9;
}

std::optional<RoundsEnd> Rounds::note(const Round& round) {
  all_.push_back(round);
  const double left = static_cast<double>(round.written_pages * kPageBytes);
  if (left <= send_rate() * static_cast<double>(limits_.downtime.count()) / 1e6) {
    return RoundsEnd::kDowntime;
  }
  if (gets_nowhere()) {
    return RoundsEnd::kDirtyRate;
  }
  if (all_.size() >= limits_.most) {
    return RoundsEnd::kMost;
  }
  return std::nullopt;
}

}  // namespace migrate
