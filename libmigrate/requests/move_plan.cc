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
  return word == check_plan().word ? check_plan() : parse_mode(word);
}

std::vector<std::string> mode_words() {
  std::vector<std::string> words;
  for (const MovePlan& mode : kModes) {
    words.emplace_back(mode.word);
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

MovePlan check_plan(bool rounds) {
  return {.word = "check", .push = false, .prefetch = false, .rounds = rounds, .only_asks = true};
}

}  // namespace migrate
