#include "libmigrate/state/drain_mark.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "base/file.h"

namespace migrate {
namespace {

std::string mark_path(const std::string& state_directory) {
  return state_directory + "/drained";
}

}  // namespace

Result<bool> is_drained(const std::string& state_directory) {
  const std::string path = mark_path(state_directory);
  if (::access(path.c_str(), F_OK) == 0) {
    return true;
  }
  return errno == ENOENT ? Result<bool>(false) : fail(system_error("look for", path));
}

Result<void> set_drained(const std::string& state_directory, bool drained) {
  const std::string path = mark_path(state_directory);
  if (drained) {
    MIGRATE_TRY(open_file(path, O_WRONLY | O_CREAT));
  } else if (::unlink(path.c_str()) != 0 && errno != ENOENT) {
    return fail(system_error("remove", path));
  }
  return {};
}

}  // namespace migrate
