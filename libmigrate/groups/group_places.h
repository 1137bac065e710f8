#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace migrate {

/// One hierarchy of control groups, as this process sees it. A value type.
struct GroupHierarchy {
  std::string controllers;  ///< As /proc/PID/cgroup names it ("cpu,cpuacct"); empty: version 2.
  std::string mount;        ///< Where it is mounted.
  std::string root;         ///< Which of its groups is seen there; empty: the first.

  bool is_version_2() const { return controllers.empty(); }
  /// Of version 1: whether it has this controller ("memory").
  bool has(std::string_view controller) const;
  /// Where the group `path` is seen; nothing: it is not.
  std::optional<std::string> directory(std::string_view path) const;
};

/// The control group of one hierarchy in which a process is.
struct GroupPlace {
  GroupHierarchy hierarchy;
  std::string path;       ///< "/" or "/user.slice/..."
  std::string directory;  ///< Where it is seen.

  /// The folders of the group and of those above it, the innermost first; without the first group
  /// that is seen, which has no limits.
  std::vector<std::string> chain() const;
};

/// The groups of a process by the text of its /proc/PID/cgroup, in the hierarchies that `mounts`
/// (as /proc/self/mountinfo) shows; those that are not seen are left out.
std::vector<GroupPlace> group_places(std::string_view groups, std::string_view mounts);

/// Those that are left out there, though something of their hierarchy is seen: without a directory.
std::vector<GroupPlace> unseen_group_places(std::string_view groups, std::string_view mounts);

/// Those of this process. Reads /proc.
std::vector<GroupPlace> own_group_places();
std::vector<GroupPlace> own_unseen_group_places();

}  // namespace migrate
