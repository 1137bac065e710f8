#include "libmigrate/requests/move_plan.h"

#include <algorithm>
#include <array>
#include <string>

#include "base/log.h"

namespace migrate {
namespace {

constexpr std::array<MovePlan, 4> kPlans{{
    {.word = "lazy"},
    {.word = "demand", .push = false, .prefetch = false},
    {.word = "eager", .all_before_run = true},
    {.word = "check", .push = false, .prefetch = false, .only_asks = true},
}};

Result<MovePlan> find(std::string_view word, bool may_ask) {
  const auto* const plan = std::find_if(kPlans.begin(), kPlans.end(), [&](const MovePlan& each) {
    return each.word == word && (may_ask || !each.only_asks);
  });
  if (plan == kPlans.end()) {
    return fail(make_error(ErrorCode::kInvalid, "move", "mode \"" + std::string(word) + "\"",
                           "use lazy, demand or eager"));
  }
  return *plan;
}

}  // namespace

Result<MovePlan> parse_mode(std::string_view word) {
  return find(word, false);
}

Result<MovePlan> parse_offered_mode(std::string_view word) {
  return find(word, true);
}

std::vector<std::string> mode_words() {
  std::vector<std::string> words;
  for (const MovePlan& plan : kPlans) {
    if (!plan.only_asks) {
      words.emplace_back(plan.word);
    }
  }
  return words;
}

MovePlan noted_plan(std::string_view word) {
  const auto plan = parse_mode(word);
  if (!plan && !word.empty()) {
    log::warn("{}; its memory follows lazily", plan.error().message());
  }
  return plan.value_or(MovePlan());
}

MovePlan check_plan() {
  return kPlans.back();
}

}  // namespace migrate
