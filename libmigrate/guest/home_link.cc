#include "libmigrate/guest/home_link.h"

#include "base/log.h"

namespace migrate {

Result<void> HomeLink::connect(int timeout_ms) {
  channel_ = MIGRATE_TRY(connect_(timeout_ms));
  return {};
}

void HomeLink::follow() {
  constexpr std::int64_t kReconnectEveryUs = 500'000;
  constexpr int kReconnectMs = 2000;  // The worker's loop stands still in that time.
  if (relay_->connected()) {
    lost_us_ = 0;
  } else if (lost_us_ == 0) {
    lost_us_ = clock_();
  }
  if (!relay_->connected() && clock_() >= next_us_) {
    next_us_ = clock_() + kReconnectEveryUs;
    if (auto connected = connect(kReconnectMs); connected) {
      attach();
    } else {
      log::info("home of process {}: {}", name_, connected.error().message());
    }
  }
  if (auto handled = relay_->handle(); !handled) {
    log::warn("home of process {}: {}", name_, handled.error().message());
  }
}

void HomeLink::report_owed(std::uint64_t pages, const std::string& by) {
  constexpr std::int64_t kOwedEveryUs = 1'000'000;
  const std::int64_t now = clock_();
  if (said_owed_ != (pages != 0) || now >= next_owed_us_) {
    said_owed_ = pages != 0;
    next_owed_us_ = now + kOwedEveryUs;
    relay_->report_owed(pages, by);
  }
}

}  // namespace migrate
