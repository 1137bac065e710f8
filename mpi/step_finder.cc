#include "mpi/step_finder.h"

#include <utility>

namespace migrate::mpi {
namespace {

constexpr float kNear = 4;
constexpr float kRegularShare = 0.75F;
constexpr float kLeastSeen = 3;
constexpr float kMostMeanToTypical = 4;
constexpr float kClearly = 1.5F;
constexpr float kAdapts = 1.2F;

}  // namespace

StepChange StepFinder::ended(std::uint64_t signature, bool of_all, std::uint64_t now_ns) {
  Candidate& call = candidate(signature);
  call.of_all = of_all;
  if (call.last_ns != 0) {
    const auto between = static_cast<float>(now_ns - call.last_ns);
    if (call.typical_ns == 0) {
      call.typical_ns = between;
    }
    call.regular +=
        between >= call.typical_ns / kNear && between <= call.typical_ns * kNear ? 1 : 0;
    call.typical_ns =
        between > call.typical_ns ? call.typical_ns * kAdapts : call.typical_ns / kAdapts;
    call.seen += 1;
    call.total_ns += between;
  }
  call.last_ns = now_ns;
  StepChange change = StepChange::kNone;
  if (signature == chosen_) {
    change = counting_ ? StepChange::kEnded : StepChange::kBegan;
    counting_ = true;
  }
  if (++calls_ == next_review_) {
    next_review_ += calls_ < kReviewEvery ? calls_ : kReviewEvery;
    review();
  }
  return change;
}

StepFinder::Candidate& StepFinder::candidate(std::uint64_t signature) {
  const std::uint64_t sets = candidates_.size() / kWays;
  Candidate* const set = &candidates_[(signature % sets) * kWays];
  Candidate* least = set;
  for (Candidate* each = set; each != set + kWays; ++each) {
    if (each->signature == signature) {
      return *each;
    }
    least = each->signature == 0 || each->seen < least->seen ? each : least;
  }
  *least = Candidate{};
  least->signature = signature;
  return *least;
}

bool StepFinder::is_regular(const Candidate& candidate) {
  return candidate.seen >= kLeastSeen && candidate.regular >= candidate.seen * kRegularShare &&
         candidate.total_ns <= candidate.typical_ns * candidate.seen * kMostMeanToTypical;
}

void StepFinder::review() {
  // What is chosen already counts for more.
  const auto rank = [this](const Candidate& each) {
    return std::pair(each.of_all, each.seen * (each.signature == chosen_ ? kClearly : 1));
  };
  const Candidate* best = nullptr;
  for (const Candidate& each : candidates_) {
    if (is_regular(each) && (best == nullptr || rank(each) > rank(*best))) {
      best = &each;
    }
  }
  if (best != nullptr && best->signature != chosen_) {
    chosen_ = best->signature;
    counting_ = false;
  }
  for (Candidate& each : candidates_) {
    each.seen /= 2;
    each.regular /= 2;
    each.total_ns /= 2;
  }
}

}  // namespace migrate::mpi
