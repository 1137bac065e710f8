#include "libmigrate/proc/children.h"

#include <sstream>
#include <string>

#include "base/file.h"

namespace migrate {

std::vector<pid_t> children_of(pid_t process) {
  std::vector<pid_t> found;
  const std::string threads = "/proc/" + std::to_string(process) + "/task/";
  for (const std::string& thread : list_directory(threads).value_or(std::vector<std::string>())) {
    std::istringstream children(read_file(threads + thread + "/children").value_or(std::string()));
    for (pid_t child = 0; children >> child;) {
      found.push_back(child);
    }
  }
  return found;
}

}  // namespace migrate
