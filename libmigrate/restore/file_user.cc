#include "libmigrate/restore/file_user.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/openat2.h>
#include <sys/fsuid.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "base/file.h"
#include "libmigrate/proc/file_identity.h"

namespace migrate {
namespace {

// The raw call changes this thread only; glibc's wrapper changes all of them.
bool set_thread_groups(const std::vector<gid_t>& groups) {
  return ::syscall(SYS_setgroups, groups.size(), groups.data()) == 0;
}

UniqueFd open_path(int directory, const std::string& path, int flags, std::uint64_t resolve) {
  open_how how{};
  // A terminal of the user's in a file's place must not become this worker's controlling terminal.
  how.flags = static_cast<unsigned>(flags | O_CLOEXEC | ((flags & O_PATH) == 0 ? O_NOCTTY : 0));
  how.resolve = resolve;
  return UniqueFd(
      static_cast<int>(::syscall(SYS_openat2, directory, path.c_str(), &how, sizeof(how))));
}

Result<UniqueFd> open_without_links(const std::string& path, int flags) {
  UniqueFd fd = open_path(AT_FDCWD, path, flags, RESOLVE_NO_SYMLINKS);
  if (!fd.valid()) {
    return fail(system_error("open as root", path, "no symbolic link may be in its path"));
  }
  return fd;
}

Error another_file(const std::string& path) {
  return make_error(ErrorCode::kRefused, "open", path,
                    "it is not surely the file that the process had, nor has it its content");
}

using CapabilitySets = std::array<__user_cap_data_struct, 2>;

/// Of this thread only: there is no wrapper that would change all of them.
bool set_effective(std::uint64_t effective, std::uint64_t permitted) {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  const auto low = [](std::uint64_t set) { return static_cast<__u32>(set); };
  const auto high = [](std::uint64_t set) { return static_cast<__u32>(set >> 32U); };
  CapabilitySets sets{{{low(effective), low(permitted), 0}, {high(effective), high(permitted), 0}}};
  return ::syscall(SYS_capset, &header, sets.data()) == 0;
}

std::uint64_t permitted_capabilities() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  CapabilitySets sets{};
  if (::syscall(SYS_capget, &header, sets.data()) != 0) {
    return 0;
  }
  return std::uint64_t{sets[1].permitted} << 32U | sets[0].permitted;
}

}  // namespace

FileUser::FileUser(const wire::Credentials& credentials, bool trusted)
    : user_(credentials.uid_filesystem()),
      group_(credentials.gid_filesystem()),
      groups_(credentials.groups().begin(), credentials.groups().end()),
      trusted_(trusted),
      own_capabilities_(permitted_capabilities()) {}

FileUser::Scope::Scope(const FileUser& user) : user_(user) {
  const int count = ::getgroups(0, nullptr);
  own_groups_.resize(static_cast<std::size_t>(count > 0 ? count : 0));
  if (count > 0) {
    ::getgroups(count, own_groups_.data());
  }
  enter();
}

FileUser::Scope::~Scope() {
  leave();
}

void FileUser::Scope::enter() {
  if (user_.is_root()) {
    return;
  }
  entered_ = set_thread_groups(user_.groups_);
  ::setfsgid(user_.group_);
  ::setfsuid(user_.user_);
  // These two do not say whether they failed; without an id that can be asked for, they do.
  entered_ = entered_ && ::setfsuid(static_cast<uid_t>(-1)) == static_cast<int>(user_.user_) &&
             ::setfsgid(static_cast<gid_t>(-1)) == static_cast<int>(user_.group_) &&
             set_effective(0, user_.own_capabilities_);
}

void FileUser::Scope::leave() {
  if (user_.is_root()) {
    return;
  }
  static_cast<void>(set_effective(user_.own_capabilities_, user_.own_capabilities_));
  ::setfsuid(0);
  ::setfsgid(0);
  static_cast<void>(set_thread_groups(own_groups_));
  entered_ = false;
}

// No link that /proc makes up is followed, nor is anything of /proc or its like opened: of this
// process itself it would show what only root may see.
Result<UniqueFd> FileUser::Scope::open_as_user(int directory, const std::string& path, int flags,
                                               std::uint64_t resolve) const {
  if (!user_.is_root() && !entered_) {
    return fail(make_error(ErrorCode::kSystem, "open", path,
                           "the daemon cannot act as the process's user; it needs CAP_SETUID and "
                           "CAP_SETGID"));
  }
  UniqueFd fd = open_path(directory, path, flags, resolve | RESOLVE_NO_MAGICLINKS);
  if (!fd.valid()) {
    return fail(system_error("open", path));
  }
  const auto type = filesystem_type_at(fd.get(), "");
  if (!type || filesystem_class(*type) == FilesystemClass::kKernel) {
    return fail(make_error(ErrorCode::kRefused, "open", path, "it shows or steers this kernel"));
  }
  return fd;
}

Result<UniqueFd> FileUser::Scope::open(const wire::FileIdentity& file, int flags) {
  const std::string& path = file.path();
  auto opened = open_as_user(AT_FDCWD, path, flags, 0);
  const bool denied =
      !opened && (opened.error().sys_errno == EACCES || opened.error().sys_errno == EPERM);
  if (denied && entered_ && user_.trusted_) {
    leave();
    opened = open_without_links(path, flags);
    const bool surely = opened && is_surely(file, opened->get());
    enter();
    if (opened && !surely) {
      return fail(another_file(path));
    }
    return opened;
  }
  if (!opened || is_surely(file, opened->get())) {
    return opened;
  }
  if (S_ISDIR(file.mode())) {
    return open_as_user(AT_FDCWD, path, flags | O_DIRECTORY, RESOLVE_NO_SYMLINKS);
  }
  return fail(another_file(path));
}

Result<UniqueFd> FileUser::Scope::open_at(int directory, const std::string& path, int flags) {
  return open_as_user(directory, path, flags, 0);
}

Result<UniqueFd> FileUser::Scope::open_directory(const std::string& path) {
  return open_as_user(AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_PATH, RESOLVE_NO_SYMLINKS);
}

}  // namespace migrate
