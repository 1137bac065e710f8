#include "tools/testbed/groups.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <sstream>
#include <vector>

#include "base/file.h"
#include "base/unique_fd.h"

namespace migrate::testbed {
namespace {

constexpr const char* kRoles[] = {"/programs", "/daemon"};

std::string list_path(const Host& host) {
  return host.directory + "/groups";
}

/// Folders of the groups of this process, but for hierarchies that limit nothing.
std::vector<std::string> own_groups() {
  std::vector<std::string> found;
  std::istringstream groups(read_file("/proc/self/cgroup").value_or(""));
  for (std::string line; std::getline(groups, line);) {  // "4:memory:/path", "0::/path"
    const std::size_t first = line.find(':') + 1;
    const std::size_t second = line.find(':', first);
    const std::string controllers = line.substr(first, second - first);
    const std::string path = line.substr(second + 1);
    std::istringstream mounts(read_file("/proc/self/mounts").value_or(""));
    for (std::string mount; std::getline(mounts, mount);) {
      std::istringstream words(mount);
      std::string what, where, type, options;
      words >> what >> where >> type >> options;
      const bool fits =
          controllers.empty()
              ? type == "cgroup2"
              : type == "cgroup" &&
                    ("," + options + ",").find("," + controllers + ",") != std::string::npos;
      if (fits && !controllers.starts_with("name=")) {
        found.push_back(where + (path == "/" ? "" : path));
        break;
      }
    }
  }
  return found;
}

/// A new group of version 1 may use no processor, and nobody may enter it.
void take_processors(const std::string& group) {
  const std::string above = group.substr(0, group.rfind('/'));
  for (const char* file : {"/cpuset.cpus", "/cpuset.mems"}) {
    if (const auto all = read_file(above + file); all && read_file(group + file)) {
      (void)write_file(group + file, *all);
    }
  }
}

bool make_group(const std::string& group) {
  if (::mkdir(group.c_str(), 0755) != 0 && errno != EEXIST) {
    return false;
  }
  take_processors(group);
  return true;
}

void remove_with_all_below(const std::string& group) {
  for (const std::string& name : list_directory(group).value_or(std::vector<std::string>())) {
    struct stat status {};
    const std::string path = group + "/" + name;
    if (::lstat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode)) {
      remove_with_all_below(path);
    }
  }
  (void)::rmdir(group.c_str());
}

std::vector<std::string> groups_of(const Host& host) {
  std::vector<std::string> groups;
  std::istringstream lines(read_file(list_path(host)).value_or(""));
  for (std::string line; std::getline(lines, line);) {
    groups.push_back(line);
  }
  return groups;
}

}  // namespace

Result<void> make_groups(const Host& host, const std::string& testbed) {
  std::string list;
  for (const std::string& above : own_groups()) {
    const std::string group = fmt::format("{}/testbed-{}-{}", above, testbed, host.name);
    if (make_group(group) && make_group(group + kRoles[0]) && make_group(group + kRoles[1])) {
      // As systemd marks what it leaves to a service.
      (void)::setxattr((group + kRoles[1]).c_str(), "trusted.delegate", "1", 1, 0);
      list += group + "\n";
    }
  }
  if (list.empty()) {
    return fail(
        make_error(ErrorCode::kUnsupported, "make control groups", host.name,
                   "bring the testbed up without --groups: no hierarchy may be changed here"));
  }
  const UniqueFd file = MIGRATE_TRY(open_file(list_path(host), O_WRONLY | O_CREAT | O_EXCL, 0644));
  return write_all(file.get(), std::as_bytes(std::span(list)));
}

Result<void> enter_groups(const Host& host, GroupRole role) {
  for (const std::string& group : groups_of(host)) {
    MIGRATE_TRY(write_file(group + kRoles[static_cast<int>(role)] + "/cgroup.procs",
                           std::to_string(::getpid())));
  }
  return {};
}

void remove_groups(const Host& host) {
  for (const std::string& group : groups_of(host)) {
    remove_with_all_below(group);
  }
}

}  // namespace migrate::testbed
