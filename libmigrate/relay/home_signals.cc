#include "libmigrate/relay/home_signals.h"

#include <algorithm>
#include <utility>

#include "libmigrate/relay/stream_buffer.h"

namespace migrate {

void HomeSignals::adopt(const wire::HomeRelayState& state) {
  waiting_.assign(state.signals().begin(), state.signals().end());
  first_ = std::max<std::uint64_t>(state.first_signal(), 1);
  sent_ = first_ - 1;
}

void HomeSignals::note(wire::HomeRelayState& state) const {
  state.set_first_signal(first_);
  for (const std::string& signal : waiting_) {
    state.add_signals(signal);
  }
}

Result<void> HomeSignals::add(std::span<const std::byte> siginfo) {
  if (waiting_.size() >= kMaxRelaySignals) {
    return fail(make_error(ErrorCode::kRetry, "forward a signal", "too many signals wait"));
  }
  std::string bytes(siginfo.size(), '\0');
  std::copy(siginfo.begin(), siginfo.end(), std::as_writable_bytes(std::span(bytes)).begin());
  waiting_.push_back(std::move(bytes));
  return {};
}

void HomeSignals::forget_before(std::uint64_t number) {
  while (first_ < number) {
    waiting_.pop_front();
    ++first_;
  }
}

void HomeSignals::resume_at(std::uint64_t next) {
  forget_before(next);
  sent_ = first_ - 1;
}

Result<void> HomeSignals::acknowledge(std::uint64_t number) {
  if (number > sent_) {
    return fail(make_error(ErrorCode::kCorrupt,
                           "accept the acknowledgement of a signal that was not sent",
                           "link to the process's place"));
  }
  forget_before(number + 1);
  return {};
}

void HomeSignals::pump(Link& link) {
  while (sent_ + 1 < first_ + waiting_.size()) {
    wire::RelayMessage message;
    message.mutable_signal()->set_number(++sent_);
    message.mutable_signal()->set_siginfo(waiting_[sent_ - first_]);
    link.send(message);
  }
}

}  // namespace migrate
