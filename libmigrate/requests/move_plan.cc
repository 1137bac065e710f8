#include "libmigrate/requests/move_plan.h"

#include <algorithm>
#include <array>
#include <string>

namespace migrate {
namespace {

constexpr std::array<MovePlan, 4> kPlans{{
    {.word = "lazy"},
    {.word = "demand", .push = false, .prefetch = false},
    {.word = "eager", .all_before_run = true},
    {.word = "check", .push = false, .prefetch = false, .only_asks = true},
}};

}  // namespace

Result<MovePlan> parse_offered_mode(std::string_view word) {
  const auto* const plan = std::find_if(kPlans.begin(), kPlans.end(),
                                        [&](const MovePlan& each) { return each.word == word; });
  if (plan == kPlans.end()) {
    return fail(make_error(ErrorCode::kInvalid, "move", "mode \"" + std::string(word) + "\"",
                           "use lazy, demand or eager"));
  }
  return *plan;
}

Result<MovePlan> parse_mode(std::string_view word) {
  auto plan = parse_offered_mode(word);
  return plan && plan->only_asks ? parse_offered_mode({}) : plan;
}

MovePlan check_plan() {
  return kPlans.back();
}

}  // namespace migrate
