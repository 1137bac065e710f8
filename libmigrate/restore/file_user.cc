#include "libmigrate/restore/file_user.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/openat2.h>
#include <sys/fsuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "base/file.h"
#include "libmigrate/inspect/file_identity.h"

namespace migrate {
namespace {

// The raw call changes this thread only; glibc's wrapper changes all of them.
bool set_thread_groups(const std::vector<gid_t>& groups) {
  return ::syscall(SYS_setgroups, groups.size(), groups.data()) == 0;
}

UniqueFd open_path(const std::string& path, int flags, std::uint64_t resolve) {
  open_how how{};
  how.flags = static_cast<unsigned>(flags | O_CLOEXEC);
  how.resolve = resolve;
  return UniqueFd(
      static_cast<int>(::syscall(SYS_openat2, AT_FDCWD, path.c_str(), &how, sizeof(how))));
}

Result<UniqueFd> open_without_links(const std::string& path, int flags) {
  UniqueFd fd = open_path(path, flags, RESOLVE_NO_SYMLINKS);
  if (!fd.valid()) {
    return fail(system_error("open as root", path, "no symbolic link may be in its path"));
  }
  return fd;
}

using CapabilitySets = std::array<__user_cap_data_struct, 2>;

CapabilitySets sets_of(std::uint64_t effective, std::uint64_t permitted) {
  const auto low = [](std::uint64_t set) { return static_cast<__u32>(set); };
  const auto high = [](std::uint64_t set) { return static_cast<__u32>(set >> 32U); };
  return {{{low(effective), low(permitted), 0}, {high(effective), high(permitted), 0}}};
}

/// Of this thread only: there is no wrapper that would change all of them.
bool set_effective(std::uint64_t effective, std::uint64_t permitted) {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  CapabilitySets sets = sets_of(effective, permitted);
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

void FileUser::add_to(Script& script) const {
  if (is_root()) {
    return;
  }
  script.must("set groups", SYS_setgroups,
              {groups_.size(), script.put(std::as_bytes(std::span(groups_)))});
  script.call(SYS_setfsgid, {group_});
  script.call(SYS_setfsuid, {user_});
}

void FileUser::script_effective(Script& script, std::uint64_t capabilities) const {
  if (!is_root()) {
    const __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    script.must("set capabilities", SYS_capset,
                {script.put_value(header),
                 script.put_value(sets_of(capabilities, own_capabilities_))});
  }
}

void FileUser::script_open(Script& script, const std::string& path, int flags) const {
  open_how how{};
  how.flags = static_cast<unsigned>(flags);
  how.resolve = is_root() ? 0 : RESOLVE_NO_MAGICLINKS;
  script_effective(script, 0);
  script.must("open", SYS_openat2,
              {static_cast<std::uint64_t>(AT_FDCWD), script.put_string(path),
               script.put_value(how), sizeof(how)},
              path);
  script_effective(script, own_capabilities_);
}

void FileUser::script_enter(Script& script, const std::string& path) const {
  script_effective(script, 0);
  script.must("enter", SYS_chdir, {script.put_string(path)}, path);
  script_effective(script, own_capabilities_);
}

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

// No link that /proc makes up is followed, nor is anything of /proc or its like opened: of this process
// itself it would show what only root may see.
Result<UniqueFd> FileUser::Scope::open_as_user(const std::string& path, int flags) const {
  if (user_.is_root()) {
    return open_file(path, flags);
  }
  UniqueFd fd = open_path(path, flags, RESOLVE_NO_MAGICLINKS);
  if (!fd.valid()) {
    return fail(system_error("open", path));
  }
  const auto type = filesystem_type_at(fd.get(), "");
  if (!type || filesystem_class(*type) == FilesystemClass::kKernel) {
    return fail(make_error(ErrorCode::kRefused, "open", path, "it shows or steers this kernel"));
  }
  return fd;
}

Result<UniqueFd> FileUser::Scope::open(const wire::FileIdentity& identity, int flags) {
  const std::string& path = identity.path();
  if (!user_.is_root() && !entered_) {
    return fail(make_error(ErrorCode::kSystem, "open", path,
                           "the daemon cannot act as the process's user; it needs CAP_SETUID and "
                           "CAP_SETGID"));
  }
  auto file = open_as_user(path, flags);
  if (file || user_.is_root() || !user_.trusted_ ||
      (file.error().sys_errno != EACCES && file.error().sys_errno != EPERM)) {
    return file;
  }
  leave();
  file = open_without_links(path, flags);
  const bool surely = file && is_surely(identity, file->get());
  enter();
  if (file && !surely) {
    return fail(make_error(ErrorCode::kRefused, "open as root", path,
                           "it is not surely the file that the process had; its user may not open "
                           "it by himself"));
  }
  return file;
}

}  // namespace migrate
