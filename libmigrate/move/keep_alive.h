#pragma once

#include <cstdint>

#include "libmigrate/move/control_channel.h"

namespace migrate {

/// Whether the peer of a control channel is still there: one whose kernel lives and who does not
/// answer is lost too, sooner or later. Times are in microseconds of any clock that only grows. A
/// value.
class KeepAlive {
 public:
  /// Something came, or the channel is new.
  void note_heard(std::int64_t now_us) { heard_us_ = now_us; }
  /// Nothing came for so long that the channel counts as lost.
  bool is_lost(std::int64_t now_us) const { return now_us - heard_us_ > kSilenceUs; }
  /// True once a second: a ping is to be sent.
  bool takes_ping(std::int64_t now_us) {
    constexpr std::int64_t kPingEveryUs = 1'000'000;
    if (now_us - pinged_us_ <= kPingEveryUs) {
      return false;
    }
    pinged_us_ = now_us;
    return true;
  }

 private:
  std::int64_t heard_us_ = 0;
  std::int64_t pinged_us_ = 0;
};

}  // namespace migrate
