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
  /// bring root's processes too. Such a file is opened as root, but no symbolic link is followed.
  FileUser(const wire::Credentials& credentials, bool trusted);

  /// While it exists, this thread opens files as the user. Errors of opening are told by open().
  class Scope {
   public:
    explicit Scope(const FileUser& user);
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

    /// Opens what is under the path of `file`, if it is surely this very file, or has its content:
    /// who owns a folder on the path could else lead the process to another. A folder, which may be
    /// another one on another host, will do if no symbolic link is on the path. Errors: kSystem
    /// (not permitted, among others), kNotFound, kRefused (it is another file by now); object is
    /// the path. Blocks.
    Result<UniqueFd> open(const wire::FileIdentity& file, int flags);
    /// Opens whatever `path` leads to from the folder `directory`; the rest is the caller's to
    /// judge.
    Result<UniqueFd> open_at(int directory, const std::string& path, int flags);
    /// Opens the folder `path`, on which no symbolic link may be, to be entered. The same.
    Result<UniqueFd> open_directory(const std::string& path);

   private:
    void enter();
    void leave();
    Result<UniqueFd> open_as_user(int directory, const std::string& path, int flags,
                                  std::uint64_t resolve) const;

    const FileUser& user_;
    std::vector<gid_t> own_groups_;
    bool entered_ = false;
  };

 private:
  bool is_root() const { return user_ == 0; }

  uid_t user_ = 0;
  gid_t group_ = 0;
  std::vector<gid_t> groups_;
  bool trusted_ = true;
  std::uint64_t own_capabilities_ = 0;  // permitted to us
};

}  // namespace migrate
