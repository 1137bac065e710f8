#include "libmigrate/groups/group_places.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>

#include "base/file.h"
#include "libmigrate/proc/proc_text.h"

namespace migrate {
namespace {

// The hierarchy that a line of mountinfo shows, if it is the one of `controllers`; that of version
// 2 if there are none.
std::optional<GroupHierarchy> hierarchy_in(std::string_view line, std::string_view controllers) {
  std::array<std::string_view, 5> words{};  // id, parent, device, root, where
  for (std::string_view& word : words) {
    word = take_word(line);
  }
  const std::size_t dash = line.find(" - ");
  if (dash == std::string_view::npos) {
    return std::nullopt;
  }
  line.remove_prefix(dash + 3);
  const std::string_view type = take_word(line);
  take_word(line);  // What is mounted.
  const std::string options = fmt::format(",{},", take_word(line));
  const bool found =
      controllers.empty()
          ? type == "cgroup2"
          : type == "cgroup" && options.find(fmt::format(",{},", controllers)) != std::string::npos;
  if (!found) {
    return std::nullopt;
  }
  return GroupHierarchy{std::string(controllers), std::string(words[4]),
                        std::string(words[3] == "/" ? "" : words[3])};
}

std::optional<GroupHierarchy> find_hierarchy(std::string_view mounts,
                                             std::string_view controllers) {
  while (!mounts.empty()) {
    if (auto found = hierarchy_in(take_line(mounts), controllers)) {
      return found;
    }
  }
  return std::nullopt;
}

// All of a hierarchy that is mounted; without a directory where the group itself is not seen.
std::vector<GroupPlace> mounted_places(std::string_view groups, std::string_view mounts) {
  std::vector<GroupPlace> places;
  while (!groups.empty()) {  // "4:memory:/path", of version 2 "0::/path"
    std::string_view group = take_line(groups);
    group.remove_prefix(std::min(group.find(':') + 1, group.size()));
    const std::string_view controllers = group.substr(0, group.find(':'));
    group.remove_prefix(std::min(controllers.size() + 1, group.size()));
    if (auto hierarchy = find_hierarchy(mounts, controllers)) {
      std::string directory = hierarchy->directory(group).value_or("");
      places.push_back({std::move(*hierarchy), std::string(group), std::move(directory)});
    }
  }
  return places;
}

std::string own_groups() {
  return read_file("/proc/self/cgroup").value_or("");
}

std::string own_mounts() {
  return read_file("/proc/self/mountinfo").value_or("");
}

}  // namespace

bool GroupHierarchy::has(std::string_view controller) const {
  return fmt::format(",{},", controllers).find(fmt::format(",{},", controller)) !=
         std::string::npos;
}

std::optional<std::string> GroupHierarchy::directory(std::string_view path) const {
  if (!path.starts_with(root) || path.find("/..") != std::string_view::npos) {
    return std::nullopt;
  }
  std::string below(path.substr(root.size()));
  if (!below.empty() && below.front() != '/') {  // Another group, whose name only begins so.
    return std::nullopt;
  }
  return mount + (below == "/" ? std::string() : below);
}

std::vector<std::string> GroupPlace::chain() const {
  std::vector<std::string> all;
  for (std::string each = directory; each.size() > hierarchy.mount.size();
       each.erase(each.rfind('/'))) {
    all.push_back(each);
  }
  return all;
}

std::vector<GroupPlace> group_places(std::string_view groups, std::string_view mounts) {
  std::vector<GroupPlace> places = mounted_places(groups, mounts);
  std::erase_if(places, [](const GroupPlace& each) { return each.directory.empty(); });
  return places;
}

std::vector<GroupPlace> unseen_group_places(std::string_view groups, std::string_view mounts) {
  std::vector<GroupPlace> places = mounted_places(groups, mounts);
  std::erase_if(places, [](const GroupPlace& each) { return !each.directory.empty(); });
  return places;
}

std::vector<GroupPlace> own_group_places() {
  return group_places(own_groups(), own_mounts());
}

std::vector<GroupPlace> own_unseen_group_places() {
  return unseen_group_places(own_groups(), own_mounts());
}

}  // namespace migrate
