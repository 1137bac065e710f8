#pragma once

#include <string>
#include <vector>

#include "base/result.h"

namespace migrate {

/// Where the control groups of processes are made that come from elsewhere. A value type.
class GroupRules {
 public:
  /// Below the daemon's own group, all of them.
  GroupRules() = default;

  /// Each rule is PATTERN=GROUP: for processes whose group at home is PATTERN, or begins so if that
  /// ends with *, below GROUP here; both are paths as /proc/PID/cgroup shows them. The first that
  /// fits counts. Errors: kInvalid.
  static Result<GroupRules> parse(const std::vector<std::string>& rules);

  /// The group for a process of which one group at home is among `places`; empty: no rule fits.
  std::string group_for(const std::vector<std::string>& places) const;
  /// All that rules name.
  std::vector<std::string> groups() const;

 private:
  struct Rule {
    std::string pattern;
    std::string group;
  };
  std::vector<Rule> rules_;
};

/// What a daemon is told of control groups.
struct GroupPolicy {
  GroupRules rules;
  bool keep_limits = false;  ///< A process comes, or goes, only with all its limits.
};

}  // namespace migrate
