#include "libmigrate/policy/travel_policy.h"

#include <fnmatch.h>

#include <algorithm>

namespace migrate {
namespace {

bool rule_fits(const PolicyRule& rule, const TravellingMemory& memory) {
  if ((rule.kind && *rule.kind != memory.kind) || memory.bytes < rule.min_bytes ||
      memory.bytes > rule.max_bytes) {
    return false;
  }
  const bool is_file = is_of_file(memory.kind);
  if ((rule.known && (!is_file || *rule.known != memory.known)) ||
      (rule.travel == Travel::kLocal && !is_file)) {
    return false;
  }
  return rule.name.empty() ||
         ::fnmatch(rule.name.c_str(), std::string(memory.name).c_str(), FNM_NOESCAPE) == 0;
}

const PolicyRule* find_rule(const PolicyRules& rules, const TravellingMemory& memory) {
  const auto found = std::ranges::find_if(
      rules, [&memory](const PolicyRule& rule) { return rule_fits(rule, memory); });
  return found == rules.end() ? nullptr : &*found;
}

/// Where programs keep what nobody else is to see and what does not outlive them.
bool is_temporary(std::string_view path) {
  return path.starts_with("/tmp/") || path.starts_with("/var/tmp/");
}

/// How much of it is given away.
int rank(Travel travel) {
  switch (travel) {
    case Travel::kRefuse:
      return 0;
    case Travel::kLocal:
      return 1;
    default:
      return 2;
  }
}

}  // namespace

TravelChoice TravelPolicy::by_default(const TravellingMemory& memory) const {
  if (!is_of_file(memory.kind)) {
    return {Travel::kShip, "default"};
  }
  // What is not the same there, the destination refuses.
  const bool ships = memory.is_shared ? is_temporary(memory.name) : ships_unknown_;
  return {memory.known || !ships ? Travel::kLocal : Travel::kLazy, "default"};
}

TravelChoice TravelPolicy::choose(const TravellingMemory& memory) const {
  const PolicyRule* of_host = find_rule(of_host_, memory);
  const PolicyRule* of_asker = find_rule(of_asker_, memory);
  TravelChoice choice =
      of_host != nullptr ? TravelChoice{of_host->travel, of_host->place} : by_default(memory);
  const bool may = of_host == nullptr ||
                   (of_asker != nullptr && rank(of_asker->travel) <= rank(of_host->travel));
  if (of_asker != nullptr && may) {
    choice = {of_asker->travel, of_asker->place};
  } else if (of_asker != nullptr) {
    choice.rule += " (not " + of_asker->place + ")";
  }
  // A copy of its own would not be what the others see; of a file that is not there, none do.
  if (memory.is_shared && memory.known && choice.travel != Travel::kRefuse) {
    choice.travel = Travel::kLocal;
  }
  return choice;
}

}  // namespace migrate
