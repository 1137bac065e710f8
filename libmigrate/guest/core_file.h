#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/unique_fd.h"
#include "libmigrate/restore/file_user.h"

namespace migrate {

/// What is known of a process that its core dump may be named after.
struct CoreOwner {
  std::uint32_t inner_pid = 0;  ///< As it saw itself.
  pid_t pid = 0;                ///< On this host.
  uid_t uid = 0;
  uid_t file_uid = 0;  ///< Whose the file is.
  gid_t gid = 0;
  int signal = 0;
  std::string command;  ///< Its name (comm) when it was last seen.
  std::string program;  ///< The path of its program.
  int directory = -1;   ///< Its working directory then; borrowed. -1: not seen.
};

/// The path of the core dump, by the kernel's `pattern` (core_pattern) and whether it adds the pid
/// by itself (core_uses_pid). Nothing if it goes to a program or a socket, or is named after what
/// nobody knows any more, as its time.
std::optional<std::string> core_path(std::string_view pattern, bool uses_pid,
                                     const CoreOwner& owner);

/// Whether the ELF file `fd` is a core dump of a process that saw itself as `inner_pid`.
bool is_core_of(int fd, std::uint32_t inner_pid);

/// Renames the core dump of `owner`, in which pages are missing, to NAME.incomplete, with the
/// rights of `user` and nobody else's, or NAME.incomplete.1 and so on: an existing file stays.
/// Returns the new path as the kernel would name it. Errors: kNotFound (no such file, or not that
/// process's), kUnsupported (not in a file), kSystem (a file of the new name exists).
Result<std::string> rename_incomplete_core(const CoreOwner& owner, const FileUser& user);

}  // namespace migrate
