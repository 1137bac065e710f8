#include "libmigrate/move/travel_plan.h"

#include <algorithm>
#include <utility>

#include "libmigrate/image/only_process.h"

namespace migrate {
namespace {

bool ask_for_files(const PolicyRules& rules) {
  return std::ranges::any_of(rules, [](const PolicyRule& rule) { return rule.known.has_value(); });
}

}  // namespace

TravelPlan::TravelPlan(const SourceMoveOptions& options) : options_(options) {}

TravelPolicy TravelPlan::policy() const {
  return {options_.context->travel, options_.request.policy, ships_unknown()};
}

bool TravelPlan::ships_unknown() const {
  return options_.request.starts || options_.request.ships_unknown;
}

void TravelPlan::begin() {
  not_there_ = {};
  asked_ = false;
}

void TravelPlan::see(wire::Image seen, std::vector<ProgramAdvice> advice) {
  seen_ = std::move(seen);
  advice_ = std::move(advice);
  asks_ = ask_for_files(options_.context->travel) || ask_for_files(options_.request.policy) ||
          (options_.request.tells_files && !options_.destination.host.empty());
  draft_ = seen_;
  travels_ = apply_policy(policy(), not_there_, advice_, draft_);
  if (must_ask()) {
    draft_ = seen_;
    travels_->refusals.clear();
    for (const TravelRow& row : travels_->rows) {
      if (row.choice.travel == Travel::kRefuse && !is_of_file(row.kind)) {  // Whatever it says.
        travels_->refusals.push_back(policy_refusal(row));
      }
    }
  }
}

void TravelPlan::learn(const FilesNotThere& not_there) {
  asked_ = true;
  not_there_ = not_there;
  draft_ = seen_;
  travels_ = apply_policy(policy(), not_there_, advice_, draft_);
}

bool TravelPlan::ship(const std::optional<FilesNotThere>& not_there) {
  if (!not_there || not_there->empty() || !travels_) {
    return false;
  }
  learn(*not_there);
  // Where all of it is sent, the destination looks for none but the executable.
  return (not_there->executable && only_process(draft_).without_executable()) ||
         std::ranges::any_of(travels_->rows, [](const TravelRow& row) {
           return !row.known && row.choice.travel != Travel::kLocal;
         });
}

bool TravelPlan::sends_as_memory() {
  const std::size_t before = as_memory_.size();
  if (travels_) {
    for (const TravelRow& row : travels_->rows) {
      if (row.is_shared && !row.known && row.choice.travel != Travel::kLocal &&
          row.choice.travel != Travel::kRefuse) {
        as_memory_.insert(row.name);
      }
    }
  }
  return as_memory_.size() != before;
}

void TravelPlan::apply_frozen(const std::vector<ProgramAdvice>& advice, wire::Image& image) {
  const bool has_rules =
      !options_.context->travel.empty() || !options_.request.policy.empty() || ships_unknown();
  if (!has_rules && advice.empty()) {  // Nothing to do, which takes no time of the freeze.
    travels_.emplace();
    return;
  }
  FilesNotThere not_there = not_there_;
  // Of what was mapped since, the destination was not asked.
  const int seen =
      asks_ ? seen_.objects().mapped_files_size() : image.objects().mapped_files_size();
  for (int file = seen; file < image.objects().mapped_files_size(); ++file) {
    not_there.mapped.insert(static_cast<std::uint32_t>(file));
  }
  travels_ = apply_policy(policy(), not_there, advice, image);
}

}  // namespace migrate
