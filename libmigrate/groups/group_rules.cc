#include "libmigrate/groups/group_rules.h"

#include <algorithm>
#include <utility>

namespace migrate {
namespace {

bool is_group_path(const std::string& path) {
  return path.starts_with('/') && path.find("/..") == std::string::npos;
}

bool fits(const std::string& pattern, const std::string& place) {
  return pattern.ends_with('*') ? place.starts_with(pattern.substr(0, pattern.size() - 1))
                                : place == pattern;
}

}  // namespace

Result<GroupRules> GroupRules::parse(const std::vector<std::string>& rules) {
  GroupRules all;
  for (const std::string& text : rules) {
    const std::size_t equals = text.find('=');
    Rule rule{text.substr(0, equals),
              equals == std::string::npos ? std::string() : text.substr(equals + 1)};
    if (!is_group_path(rule.pattern) || !is_group_path(rule.group)) {
      return fail(make_error(ErrorCode::kInvalid, "read the rule", "\"" + text + "\"",
                             "write PATTERN=GROUP, such as /user.slice/*=/guests.slice"));
    }
    all.rules_.push_back(std::move(rule));
  }
  return all;
}

std::string GroupRules::group_for(const std::vector<std::string>& places) const {
  for (const Rule& rule : rules_) {
    if (std::ranges::any_of(places, [&](const auto& place) { return fits(rule.pattern, place); })) {
      return rule.group;
    }
  }
  return {};
}

std::vector<std::string> GroupRules::groups() const {
  std::vector<std::string> groups;
  for (const Rule& rule : rules_) {
    groups.push_back(rule.group);
  }
  return groups;
}

}  // namespace migrate
