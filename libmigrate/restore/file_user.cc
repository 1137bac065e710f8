#include "libmigrate/restore/file_user.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/fsuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "base/file.h"
#include "libmigrate/inspect/file_identity.h"

namespace migrate {
namespace {

// The raw call changes this thread only; glibc's wrapper changes all of them.
bool set_thread_groups(const std::vector<gid_t>& groups) {
  return ::syscall(SYS_setgroups, groups.size(), groups.data()) == 0;
}

Result<UniqueFd> open_without_links(const std::string& path, int flags) {
  open_how how{};
  how.flags = static_cast<unsigned>(flags | O_CLOEXEC);
  how.resolve = RESOLVE_NO_SYMLINKS;
  UniqueFd fd(static_cast<int>(::syscall(SYS_openat2, AT_FDCWD, path.c_str(), &how, sizeof(how))));
  if (!fd.valid()) {
    return fail(system_error("open as root", path, "no symbolic link may be in its path"));
  }
  return fd;
}

}  // namespace

FileUser::FileUser(const wire::Credentials& credentials, bool trusted)
    : user_(credentials.uid_filesystem()),
      group_(credentials.gid_filesystem()),
      groups_(credentials.groups().begin(), credentials.groups().end()),
      trusted_(trusted) {}

void FileUser::add_to(Script& script) const {
  if (is_root()) {
    return;
  }
  script.must("set groups", SYS_setgroups,
              {groups_.size(), script.put(std::as_bytes(std::span(groups_)))});
  script.call(SYS_setfsgid, {group_});
  script.call(SYS_setfsuid, {user_});
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
             ::setfsgid(static_cast<gid_t>(-1)) == static_cast<int>(user_.group_);
}

void FileUser::Scope::leave() {
  if (user_.is_root()) {
    return;
  }
  ::setfsuid(0);
  ::setfsgid(0);
  static_cast<void>(set_thread_groups(own_groups_));
  entered_ = false;
}

Result<UniqueFd> FileUser::Scope::open(const wire::FileIdentity& identity, int flags) {
  const std::string& path = identity.path();
  if (!user_.is_root() && !entered_) {
    return fail(make_error(ErrorCode::kSystem, "open", path,
                           "the daemon cannot act as the process's user; it needs CAP_SETUID and "
                           "CAP_SETGID"));
  }
  auto file = open_file(path, flags);
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
