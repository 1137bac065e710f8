#include "libmigrate/rules/host_memory.h"

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>

#include "base/file.h"
#include "libmigrate/proc/proc_text.h"

namespace migrate {
namespace {

/// How the two versions of control groups name the same things.
struct Hierarchy {
  std::string_view key;  ///< What comes before the path in a line of /proc/self/cgroup.
  const char* mount;
  const char* limit;
  const char* used;
  const char* cached;  ///< In memory.stat: files that are given up first.
};
constexpr Hierarchy kVersion2{"0::", "/sys/fs/cgroup", "/memory.max", "/memory.current",
                              "inactive_file"};
constexpr Hierarchy kVersion1{":memory:", "/sys/fs/cgroup/memory", "/memory.limit_in_bytes",
                              "/memory.usage_in_bytes", "total_inactive_file"};

/// The number that a file holds, or nothing ("max", or no such file).
std::optional<std::uint64_t> number_in(const std::string& path) {
  const std::string text = read_file(path).value_or("");
  return parse_number(std::string_view(text).substr(0, text.find('\n')));
}

/// What is left in one control group; nothing if it has no limit.
std::optional<std::uint64_t> left_in_group(const Hierarchy& hierarchy, const std::string& path) {
  const auto limit = number_in(path + hierarchy.limit);
  const auto used = number_in(path + hierarchy.used);
  if (!limit || !used) {
    return std::nullopt;
  }
  const std::uint64_t cached =
      number_field(read_file(path + "/memory.stat").value_or(""), hierarchy.cached);
  const std::uint64_t held = *used - std::min(cached, *used);
  return *limit - std::min(held, *limit);
}

/// The least that is left in this process's group and those above it.
std::uint64_t least_left(const Hierarchy& hierarchy, std::string path, std::uint64_t least) {
  for (;; path.erase(path.rfind('/'))) {
    if (const auto left = left_in_group(hierarchy, hierarchy.mount + path)) {
      least = std::min(least, *left);
    }
    if (path.find('/') == std::string::npos) {
      return least;
    }
  }
}

}  // namespace

Result<std::uint64_t> available_memory_bytes() {
  std::uint64_t available =
      number_field(MIGRATE_TRY(read_file("/proc/meminfo")), "MemAvailable:") * kKibibyte;
  const std::string groups = MIGRATE_TRY(read_file("/proc/self/cgroup"));
  for (std::string_view rest = groups; !rest.empty();) {
    const std::string_view line = take_line(rest);
    for (const Hierarchy& hierarchy : {kVersion1, kVersion2}) {
      if (const std::size_t at = line.find(hierarchy.key); at != std::string_view::npos) {
        available =
            least_left(hierarchy, std::string(line.substr(at + hierarchy.key.size())), available);
      }
    }
  }
  return available;
}

}  // namespace migrate
