#include "libmigrate/guest/source_link.h"

#include <utility>

#include "libmigrate/host/event_sink.h"

namespace migrate {

void SourceLink::attach(std::unique_ptr<ControlChannel> control) {
  control_ = std::move(control);
  heard_us_ = clock_();
}

void SourceLink::answer(std::unique_ptr<ControlChannel> control, const wire::Progress& progress,
                        bool wants_all) {
  attach(std::move(control));
  wire::ControlMessage message;
  message.mutable_verdict()->set_fate(wire::Verdict::RUNS);
  *message.mutable_verdict()->mutable_progress() = progress;
  if (!control_->send(message)) {
    control_.reset();
  } else if (wants_all) {
    ask_for_all();  // A new worker there has not heard of it.
  }
}

void SourceLink::ask_for_all() {
  if (!control_) {
    return;
  }
  wire::ControlMessage message;
  message.mutable_send_all();
  if (!control_->send(message)) {
    control_.reset();
  }
}

bool SourceLink::hear() {
  const bool knew = knows_;
  while (control_) {
    auto message = control_->try_receive();
    if (!message) {
      control_.reset();
    } else if (!*message) {
      break;
    } else {
      heard_us_ = clock_();
      knows_ = knows_ || (*message)->has_goodbye();
    }
  }
  if (knows_ && !knew) {
    control_.reset();  // It may have closed the connection since.
    return true;
  }
  return false;
}

void SourceLink::tell(const wire::Progress& progress) {
  next_us_ = clock_() + kProgressEveryUs;
  if (!control_) {
    return;
  }
  wire::ControlMessage message;
  *message.mutable_progress() = progress;
  if (!control_->send(message) || clock_() - heard_us_ > kSilenceUs) {
    control_.reset();
  }
}

}  // namespace migrate
