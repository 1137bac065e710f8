#include "libmigrate/move/farewell.h"

#include <utility>

namespace migrate {
namespace {

constexpr std::int64_t kFarewellUs = 2'000'000;

}  // namespace

void Farewell::begin(std::unique_ptr<ControlChannel> channel) {
  channel_ = std::move(channel);
  until_us_ = clock_() + kFarewellUs;
}

int Farewell::poll_fd() const {
  return channel_ ? channel_->channel().poll_fd() : -1;
}

void Farewell::follow() {
  while (channel_) {
    const auto message = channel_->try_receive();
    if (!message || clock_() > until_us_) {
      channel_.reset();
    } else if (!*message) {
      return;
    }
  }
}

}  // namespace migrate
