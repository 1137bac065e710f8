#include "pager/internal/fault_waiting.h"

namespace migrate {
namespace {

// Threads that fault more seldom do something else, which says nothing of how they were served.
constexpr std::chrono::milliseconds kOfOneWalk{2};

}  // namespace

FaultWaiting::FaultWaiting(std::chrono::microseconds most)
    : for_answers_(most), for_faults_(most), ways_(most.count() > 0 ? kWays : 1) {}

void FaultWaiting::note_fault(Clock::time_point now) {
  if (now - last_fault_ < kOfOneWalk) {
    ways_.note(now - last_fault_);
  }
  last_fault_ = now;
}

void FaultWaiting::note_activity() {
  if (waiting_ != nullptr && !asleep_) {
    waiting_->note(true);
  }
  waiting_ = nullptr;
  asleep_ = false;
}

bool FaultWaiting::sleeps(Clock::time_point now, bool for_answer) {
  if (waiting_ == nullptr) {
    waiting_ = for_answer ? &for_answers_ : &for_faults_;
    since_ = now;
    asleep_ = asleep_ || ways_.way() == kSleep || (ways_.way() == kPollForAnswers && !for_answer);
  }
  if (!asleep_ && now - since_ >= waiting_->limit()) {
    waiting_->note(false);
    asleep_ = true;
  }
  return asleep_;
}

}  // namespace migrate
