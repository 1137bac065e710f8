#include "libmigrate/requests/move_plan.h"

#include <string>

#include "base/log.h"

namespace migrate {

Result<MovePlan> parse_mode(std::string_view word) {
  const auto mode = find_mode(word);
  if (!mode) {
    return fail(make_error(ErrorCode::kInvalid, "move", "mode \"" + std::string(word) + "\"",
                           "use " + list_modes()));
  }
  return *mode;
}

Result<MovePlan> parse_offered_mode(std::string_view word) {
  if (word == check_plan().word) {
    return check_plan();
  }
  const MovePlan plan = MIGRATE_TRY(parse_mode(word));
  if (plan.decides) {
    return fail(make_error(ErrorCode::kInvalid, "take an offer",
                           "mode \"" + std::string(word) + "\"",
                           "the source is to decide which mode that is"));
  }
  return plan;
}

std::vector<std::string> mode_words() {
  std::vector<std::string> words;
  for (const MovePlan& mode : kModes) {
    words.emplace_back(mode.word);
  }
  return words;
}

MovePlan noted_plan(std::string_view word) {
  const auto plan = parse_offered_mode(word);
  if (!plan && !word.empty()) {
    log::warn("{}; its memory follows lazily", plan.error().message());
  }
  return plan.value_or(MovePlan());
}

MovePlan check_plan(const MovePlan& of) {
  return {.word = "check",
          .push = false,
          .prefetch = false,
          .rounds = of.rounds,
          .decides = of.decides,
          .only_asks = true};
}

}  // namespace migrate
