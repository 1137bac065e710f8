#include "libmigrate/proc/children.h"

#include <fmt/core.h>

#include <sstream>
#include <string>

#include "base/file.h"

namespace migrate {

Result<std::vector<pid_t>> children_of(pid_t process) {
  std::vector<pid_t> found;
  const std::string threads = "/proc/" + std::to_string(process) + "/task/";
  for (const std::string& thread : MIGRATE_TRY(list_directory(threads))) {
    std::istringstream children(
        MIGRATE_TRY(read_file(fmt::format("{}{}/children", threads, thread))));
    for (pid_t child = 0; children >> child;) {
      found.push_back(child);
    }
  }
  return found;
}

}  // namespace migrate
