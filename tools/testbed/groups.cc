#include "tools/testbed/groups.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <iterator>
#include <sstream>
#include <string_view>
#include <thread>
#include <vector>

#include "base/file.h"
#include "base/unique_fd.h"

namespace migrate::testbed {
namespace {

constexpr const char* kPrograms = "/programs";

/// What a host has of one hierarchy; a line of its list.
struct HostGroup {
  std::string group;   ///< Of its programs, and of processes that come to it.
  std::string daemon;  ///< Below that, unless `group` limits processors.
  std::string seen;    ///< `group` as /proc/PID/cgroup names it, if it limits processors.
};

std::string list_path(const Host& host) {
  return host.directory + "/groups";
}

constexpr std::chrono::seconds kEmptyPatience{2};
constexpr std::uint64_t kPeriodUs = 20000;

/// A group of this process.
struct OwnGroup {
  std::string directory;
  std::string mount;        ///< Where its hierarchy is mounted.
  std::string controllers;  ///< Empty: version 2.

  bool has(std::string_view controller) const {
    return fmt::format(",{},", controllers).find(fmt::format(",{},", controller)) !=
           std::string::npos;
  }
};

/// Those in all hierarchies but such that limit nothing.
std::vector<OwnGroup> own_groups() {
  std::vector<OwnGroup> found;
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
        found.push_back({where + (path == "/" ? "" : path), where, controllers});
        break;
      }
    }
  }
  return found;
}

bool has_word(const std::string& path, std::string_view wanted) {
  std::istringstream words(read_file(path).value_or(""));
  return std::find(std::istream_iterator<std::string>(words), {}, wanted) !=
         std::istream_iterator<std::string>();
}

/// Of version 2, the nearest group from this process's upwards whose children can be limited. A
/// group that holds processes gives its children no controller, but for the first of all.
std::optional<std::string> parent_of_limited(const OwnGroup& own) {
  for (std::string each = own.directory;; each.erase(each.rfind('/'))) {
    const std::string given = each + "/cgroup.subtree_control";
    if (has_word(given, "cpu") ||
        (has_word(each + "/cgroup.controllers", "cpu") && write_file(given, "+cpu").has_value())) {
      return each;
    }
    if (each.size() <= own.mount.size()) {
      return std::nullopt;
    }
  }
}

/// Where a host's groups that limit its processors, or count what they do, are to be made. Without
/// the first nothing can be limited.
std::vector<OwnGroup> parents_of_limited() {
  std::vector<OwnGroup> found;
  for (OwnGroup& own : own_groups()) {
    if (own.has("cpu")) {
      found.insert(found.begin(), std::move(own));
    } else if (own.has("cpuacct")) {
      found.push_back(std::move(own));
    } else if (auto parent = own.controllers.empty() ? parent_of_limited(own) : std::nullopt) {
      own.directory = *parent;
      found.insert(found.begin(), std::move(own));
    }
  }
  return found;
}

Result<void> limit_processors(const std::string& group, double processors) {
  const auto runs_us = static_cast<std::uint64_t>(processors * kPeriodUs);
  if (read_file(group + "/cpu.max")) {
    return write_file(group + "/cpu.max", fmt::format("{} {}", runs_us, kPeriodUs));
  }
  MIGRATE_TRY(write_file(group + "/cpu.cfs_period_us", std::to_string(kPeriodUs)));
  return write_file(group + "/cpu.cfs_quota_us", std::to_string(runs_us));
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
    const std::string path = (std::filesystem::path(group) / name).string();
    if (::lstat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode)) {
      remove_with_all_below(path);
    }
  }
  // Processes that have ended are still in it until the kernel is done with them.
  const auto deadline = std::chrono::steady_clock::now() + kEmptyPatience;
  while (::rmdir(group.c_str()) != 0 && errno == EBUSY &&
         std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

std::vector<HostGroup> groups_of(const Host& host) {
  std::vector<HostGroup> groups;
  std::istringstream lines(read_file(list_path(host)).value_or(""));
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    HostGroup each;
    words >> each.group >> each.daemon >> each.seen;
    groups.push_back(std::move(each));
  }
  return groups;
}

void remove_group(const HostGroup& each) {
  remove_with_all_below(each.group);
  remove_with_all_below(each.daemon);
}

}  // namespace

Result<std::vector<GroupView>> make_groups(const Host& host, const std::string& testbed,
                                           const HostLimits& limits) {
  std::vector<HostGroup> made;
  std::vector<GroupView> views;
  const auto make_below = [&](const OwnGroup& above, bool is_root) {
    const std::string group = fmt::format("{}/testbed-{}-{}", above.directory, testbed, host.name);
    const std::string daemon = group + (is_root ? "-daemon" : "/daemon");
    if (!make_group(group) || !make_group(group + kPrograms) || !make_group(daemon)) {
      return;
    }
    // As systemd marks what it leaves to a service.
    (void)::setxattr(daemon.c_str(), "trusted.delegate", "1", 1, 0);
    made.push_back({group, daemon, is_root ? group.substr(above.mount.size()) : ""});
    if (is_root) {
      // Whoever has a process that comes here may have it there.
      (void)::chmod((group + "/cgroup.procs").c_str(), 0666);
      views.push_back({group, above.mount});
    }
  };
  std::vector<OwnGroup> limiting;
  if (limits.processors) {
    limiting = parents_of_limited();
    for (const OwnGroup& above : limiting) {
      make_below(above, true);
    }
    if (made.empty() || !limit_processors(made.front().group, *limits.processors)) {
      std::ranges::for_each(made, remove_group);
      return fail(make_error(
          ErrorCode::kUnsupported, "limit processors", host.name,
          "bring the testbed up without --cpus: no control group that has quotas of processors "
          "(the controller cpu) can be made here"));
    }
  }
  for (const OwnGroup& own : limits.groups ? own_groups() : std::vector<OwnGroup>()) {
    if (std::ranges::find(limiting, own.mount, &OwnGroup::mount) == limiting.end()) {
      make_below(own, false);
    }
  }
  if (made.empty()) {
    return fail(
        make_error(ErrorCode::kUnsupported, "make control groups", host.name,
                   "bring the testbed up without --groups: no hierarchy may be changed here"));
  }
  std::string list;
  for (const HostGroup& each : made) {
    list += fmt::format("{} {} {}\n", each.group, each.daemon, each.seen);
  }
  const UniqueFd file = MIGRATE_TRY(open_file(list_path(host), O_WRONLY | O_CREAT | O_EXCL, 0644));
  MIGRATE_TRY(write_all(file.get(), std::as_bytes(std::span(list))));
  return views;
}

std::optional<double> processors_of(const Host& host) {
  for (const auto& [group, daemon, seen] : groups_of(host)) {
    std::istringstream quota(read_file(group + "/cpu.max").value_or(""));
    double runs_us = 0;
    double period_us = 0;
    if (quota >> runs_us >> period_us) {
      return runs_us / period_us;
    }
    std::istringstream runs(read_file(group + "/cpu.cfs_quota_us").value_or(""));
    std::istringstream period(read_file(group + "/cpu.cfs_period_us").value_or(""));
    if (runs >> runs_us && runs_us > 0 && period >> period_us) {
      return runs_us / period_us;
    }
  }
  return std::nullopt;
}

Result<void> enter_groups(const Host& host, GroupRole role) {
  for (const auto& [group, daemon, seen] : groups_of(host)) {
    const std::string own = role == GroupRole::kDaemon ? daemon : group + kPrograms;
    MIGRATE_TRY(write_file(own + "/cgroup.procs", std::to_string(::getpid())));
  }
  return {};
}

void remove_groups(const Host& host) {
  std::ranges::for_each(groups_of(host), remove_group);
}

std::string rule_for_guests(const Host& host) {
  for (const auto& [group, daemon, seen] : groups_of(host)) {
    if (!seen.empty()) {
      return "/*=" + seen;
    }
  }
  return {};
}

}  // namespace migrate::testbed
