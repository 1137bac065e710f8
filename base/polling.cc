#include "base/polling.h"

#include <algorithm>

namespace migrate {
namespace {

constexpr std::chrono::microseconds kFirstTrial{50};
constexpr int kFirstPause = 4;
constexpr int kLongestPause = 256;

}  // namespace

Polling::Polling(std::chrono::microseconds most)
    : most_(most), trial_(std::min(kFirstTrial, most)), limit_(trial_), pause_(kFirstPause) {}

void Polling::note(bool while_polling) {
  if (while_polling) {
    limit_ = most_;
    trial_ = std::min(kFirstTrial, most_);
    pause_ = kFirstPause;
  } else if (limit_.count() > 0) {
    limit_ = std::chrono::microseconds(0);
    left_ = pause_;
    pause_ = std::min(2 * pause_, kLongestPause);
  } else if (left_ > 1) {
    --left_;
  } else {
    limit_ = trial_;
    // Perhaps it comes a little later than the last trial ended.
    trial_ = std::min(2 * trial_, most_);
  }
}

}  // namespace migrate
