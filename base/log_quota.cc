#include "base/log_quota.h"

#include <algorithm>
#include <new>

#include "base/clock.h"

namespace migrate {
namespace {

constexpr std::int64_t kPauseNs = 2 * kNanosecondsPerSecond;
constexpr std::int64_t kAtOnce = 10;

}  // namespace

Result<LogQuota> LogQuota::create() {
  Mapping memory = MIGRATE_TRY(Mapping::create_shared(sizeof(Words)));
  new (memory.bytes().data()) Words{};
  return LogQuota(std::move(memory));
}

std::optional<std::string> LogQuota::take() const {
  Words& words = *reinterpret_cast<Words*>(memory_.bytes().data());
  const std::int64_t now = clock_ns(CLOCK_MONOTONIC);
  std::int64_t paid = words.paid_until_ns;
  std::int64_t next = 0;
  do {
    next = std::max(paid, now) + kPauseNs;
    if (next > now + kAtOnce * kPauseNs) {
      ++words.left_out;
      return std::nullopt;
    }
  } while (!words.paid_until_ns.compare_exchange_weak(paid, next));
  const std::uint64_t left_out = words.left_out.exchange(0);
  return left_out == 0 ? std::string()
                       : " (" + std::to_string(left_out) + " more of this kind were not logged)";
}

}  // namespace migrate
