#include "libmigrate/api/move_members.h"

#include "libmigrate/api/json_text.h"
#include "libmigrate/requests/move_words.h"

namespace migrate::client {

std::optional<Answer> move_members(const migrate_options& options, const char* destination,
                                   const char* wait, std::string& members) {
  const std::string mode = or_default(options.mode, MovePlan().word.data());
  if (destination == nullptr || *destination == '\0') {
    return answer_of(MIGRATE_USAGE, "a move needs a destination: \"HOST\" or \"HOST:PORT\"");
  }
  if (!find_mode(mode)) {
    return answer_of(MIGRATE_USAGE, "mode \"" + mode + "\" is none of " + list_modes());
  }
  const std::string wish = or_default(options.wish, kWishes.front().first.data());
  if (!find_word(wish, kWishes)) {
    return answer_of(MIGRATE_USAGE, "wish \"" + wish + "\" is none of " + list_words(kWishes));
  }
  if (!find_word(wait, kMoveWaitWords)) {
    return answer_of(MIGRATE_USAGE,
                     "wait \"" + std::string(wait) + "\" is none of " + list_words(kMoveWaitWords));
  }
  members = "\"command\":\"move\",\"destination\":" + quote(destination) +
            ",\"mode\":" + quote(mode) + ",\"wish\":" + quote(wish) + ",\"wait\":" + quote(wait) +
            ",\"retry_seconds\":" + std::to_string(options.retry_seconds);
  return std::nullopt;
}

}  // namespace migrate::client
