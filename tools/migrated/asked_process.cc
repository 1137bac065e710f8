#include "tools/migrated/asked_process.h"

#include <sys/stat.h>

#include <cstdio>
#include <string>

#include "base/file.h"

namespace migrate {

Result<uid_t> owner_of(pid_t pid) {
  const std::string name = "process " + std::to_string(pid);
  Result<std::string> status = read_file("/proc/" + std::to_string(pid) + "/status");
  if (!status) {
    return fail(
        make_error(ErrorCode::kNotFound, "find", name, "no process of this host has this pid"));
  }
  const std::size_t at = status->find("\nUid:");
  uid_t user = 0;
  if (at == std::string::npos || std::sscanf(status->c_str() + at, "\nUid: %u", &user) != 1) {
    return fail(make_error(ErrorCode::kCorrupt, "read the owner of", name));
  }
  return user;
}

bool is_ours(pid_t pid) {
  struct stat theirs = {};
  struct stat own = {};
  const std::string program = "/proc/" + std::to_string(pid) + "/exe";
  return pid == 1 || (stat(program.c_str(), &theirs) == 0 && stat("/proc/self/exe", &own) == 0 &&
                      theirs.st_dev == own.st_dev && theirs.st_ino == own.st_ino);
}

}  // namespace migrate
