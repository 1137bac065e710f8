#include "mpi/step_finder.h"

namespace migrate::mpi {
namespace {

constexpr float kNear = 4;
constexpr float kRegularShare = 0.75F;
constexpr float kLeastSeen = 3;
constexpr float kMostSeen = 128;
constexpr float kMostMeanToTypical = 4;
constexpr float kGone = 8;
constexpr float kForAll = 4;
constexpr float kForChosen = 1.5F;
constexpr float kAdapts = 1.2F;
constexpr std::uint64_t kSpread = 0x9e3779b97f4a7c15;  // 2^64 by the golden ratio.

}  // namespace

StepChange StepFinder::ended(std::uint64_t call, bool of_all, std::uint64_t now_ns) {
  const std::uint64_t mixed = (previous_ * kSpread + call) * kSpread;
  const std::uint64_t signature = (mixed ^ (mixed >> 32)) | 1;
  previous_ = call;
  note(candidate(signature), of_all, now_ns);
  StepChange change = StepChange::kNone;
  if (signature == chosen_) {
    change = counting_ ? StepChange::kEnded : StepChange::kBegan;
    counting_ = true;
  }
  if (++calls_ == next_review_) {
    next_review_ += calls_ < kReviewEvery ? calls_ : kReviewEvery;
    review(now_ns);
  }
  return change;
}

void StepFinder::note(Candidate& call, bool of_all, std::uint64_t now_ns) {
  call.of_all = of_all;
  if (call.last_ns != 0) {
    const auto between = static_cast<float>(now_ns - call.last_ns);
    if (call.typical_ns == 0) {
      call.typical_ns = between;
    }
    const bool near = between >= call.typical_ns / kNear && between <= call.typical_ns * kNear;
    call.regular += near ? 1 : 0;
    call.typical_ns =
        between > call.typical_ns ? call.typical_ns * kAdapts : call.typical_ns / kAdapts;
    call.seen += 1;
    call.total_ns += between;
    if (call.seen >= kMostSeen) {
      call.seen /= 2;
      call.regular /= 2;
      call.total_ns /= 2;
    }
  }
  call.last_ns = now_ns;
}

StepFinder::Candidate& StepFinder::candidate(std::uint64_t signature) {
  const std::uint64_t sets = candidates_.size() / kWays;
  Candidate* const set = &candidates_[(signature % sets) * kWays];
  Candidate* oldest = set;
  for (Candidate* each = set; each != set + kWays; ++each) {
    if (each->signature == signature) {
      return *each;
    }
    oldest = each->last_ns < oldest->last_ns ? each : oldest;
  }
  *oldest = Candidate{};
  oldest->signature = signature;
  return *oldest;
}

bool StepFinder::is_regular(const Candidate& candidate, std::uint64_t now_ns) {
  return candidate.seen >= kLeastSeen && candidate.regular >= candidate.seen * kRegularShare &&
         candidate.total_ns <= candidate.typical_ns * candidate.seen * kMostMeanToTypical &&
         static_cast<float>(now_ns - candidate.last_ns) * candidate.seen <=
             candidate.total_ns * kGone;
}

void StepFinder::review(std::uint64_t now_ns) {
  const auto rarity = [this](const Candidate& each) {
    return each.total_ns / each.seen * (each.of_all ? 1 : kForAll) /
           (each.signature == chosen_ ? kForChosen : 1);
  };
  const Candidate* best = nullptr;
  for (const Candidate& each : candidates_) {
    if (is_regular(each, now_ns) && (best == nullptr || rarity(each) < rarity(*best))) {
      best = &each;
    }
  }
  if (best != nullptr && best->signature != chosen_) {
    chosen_ = best->signature;
    counting_ = false;
  }
}

}  // namespace migrate::mpi
