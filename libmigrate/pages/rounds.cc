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

std::optional<RoundsEnd> Rounds::note(const Round& round) {
  all_.push_back(round);
  const double left = static_cast<double>(round.written_pages * kPageBytes);
  if (left <= send_rate() * static_cast<double>(limits_.downtime.count()) / 1e6) {
    return RoundsEnd::kDowntime;
  }
  if (dirty_rate() >= send_rate()) {
    return RoundsEnd::kDirtyRate;
  }
  if (all_.size() >= limits_.most) {
    return RoundsEnd::kMost;
  }
  return std::nullopt;
}

}  // namespace migrate
