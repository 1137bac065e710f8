#include "libmigrate/api/move_members.h"

#include <algorithm>

#include "libmigrate/api/json_text.h"
#include "libmigrate/requests/move_words.h"

namespace migrate::client {

namespace {

bool is_empty(const char* destination) {
  return destination == nullptr || *destination == '\0';
}

/// From where it connects then.
std::optional<Answer> network_member(const migrate_options& options, std::string& members) {
  const std::string network = or_default(options.network, kNetworkWords.front().first.data());
  if (!find_word(network, kNetworkWords)) {
    return answer_of(MIGRATE_USAGE,
                     "network \"" + network + "\" is none of " + list_words(kNetworkWords));
  }
  members += ",\"network\":" + quote(network);
  return std::nullopt;
}

/// Those of how it goes there.
std::optional<Answer> way_members(const migrate_options& options, const char* wait,
                                  std::string& members) {
  const std::string mode = or_default(options.mode, MovePlan().word.data());
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
  members += ",\"mode\":" + quote(mode) + ",\"wish\":" + quote(wish) + ",\"wait\":" + quote(wait) +
             ",\"retry_seconds\":" + std::to_string(options.retry_seconds);
  return network_member(options, members);
}

}  // namespace

std::optional<Answer> check_members(const migrate_options& options, const char* destination,
                                    std::string& members) {
  members = "\"command\":\"check\",\"destination\":" + quote(or_default(destination, ""));
  return network_member(options, members);
}

std::optional<Answer> move_members(const migrate_options& options, const char* destination,
                                   const char* wait, std::string& members) {
  if (is_empty(destination)) {
    return answer_of(MIGRATE_USAGE, "a move needs a destination: \"HOST\" or \"HOST:PORT\"");
  }
  members = "\"command\":\"move\",\"destination\":" + quote(destination);
  return way_members(options, wait, members);
}

std::optional<Answer> fork_members(const migrate_options& options,
                                   std::span<const char* const> destinations, std::size_t count,
                                   std::string& members) {
  if (destinations.empty() || std::ranges::any_of(destinations, is_empty)) {
    return answer_of(MIGRATE_USAGE, "copies need destinations: \"HOST\" or \"HOST:PORT\"");
  }
  members = "\"command\":\"fork\",\"destinations\":[";
  for (const char* const each : destinations) {
    members += (members.back() == '[' ? "" : ",") + quote(each);
  }
  members += "],\"count\":" + std::to_string(count);
  return way_members(options, "resumed", members);
}

}  // namespace migrate::client
