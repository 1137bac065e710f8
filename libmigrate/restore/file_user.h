#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "libmigrate/proto/image.pb.h"
#include "libmigrate/trace/script.h"

namespace migrate {

/// As whom the files of a moved process are opened: the worker is root, but must open nothing that
/// the process's user could not, neither because an image says so, nor because someone puts a link
/// in a file's place meanwhile. The file system ids alone are not enough: for what /proc shows of
/// other processes, the kernel looks at capabilities, and a descriptor keeps those that opened it.
/// A value type.
class FileUser {
 public:
  /// root.
  FileUser() = default;
  /// `trusted`: the process may have got files from root at its source, and whoever sent it may
  /// bring root's processes too. Such a file is opened as root, but no symbolic link is followed,
  /// and it must be the same file: the user may have put another of root's in its place.
  FileUser(const wire::Credentials& credentials, bool trusted);

  /// While it exists, this thread opens files as the user. Errors of opening are told by open().
  class Scope {
   public:
    explicit Scope(const FileUser& user);
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

    /// Opens what is under the path of `file`; as root, which may be allowed to what a user is not,
    /// only if it is surely this very file. Errors: kSystem (not permitted, among others),
    /// kNotFound, kRefused (it is another file by now); object is the path. Blocks.
    Result<UniqueFd> open(const wire::FileIdentity& file, int flags);

   private:
    void enter();
    void leave();
    Result<UniqueFd> open_as_user(const std::string& path, int flags) const;

    const FileUser& user_;
    std::vector<gid_t> own_groups_;
    bool entered_ = false;
  };

  /// Adds the calls by which a process that is still root's becomes the user, for files; what paths
  /// lead to is to be opened by the two below.
  void add_to(Script& script) const;
  /// Adds an openat2(2) that must succeed, and a chdir(2), in a process that add_to() was run in:
  /// without the capabilities that it still has from us.
  void script_open(Script& script, const std::string& path, int flags) const;
  void script_enter(Script& script, const std::string& path) const;

 private:
  void script_effective(Script& script, std::uint64_t capabilities) const;
  bool is_root() const { return user_ == 0; }

  uid_t user_ = 0;
  gid_t group_ = 0;
  std::vector<gid_t> groups_;
  bool trusted_ = true;
  std::uint64_t own_capabilities_ = 0;  // permitted to us
};

}  // namespace migrate
