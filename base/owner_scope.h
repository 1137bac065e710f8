#pragma once

#include <sys/fsuid.h>
#include <sys/types.h>

namespace migrate {

/// While it lives, what the calling thread makes belongs to a user and group (setfsuid(2)), as
/// chown(2) would need CAP_CHOWN for. Needs CAP_SETUID and CAP_SETGID; without them, or for the
/// user that the thread is, it changes nothing.
class OwnerScope {
 public:
  OwnerScope(uid_t user, gid_t group)
      : group_(static_cast<gid_t>(::setfsgid(group))),
        user_(static_cast<uid_t>(::setfsuid(user))) {}
  OwnerScope(const OwnerScope&) = delete;
  OwnerScope& operator=(const OwnerScope&) = delete;
  ~OwnerScope() {
    ::setfsuid(user_);
    ::setfsgid(group_);
  }

 private:
  const gid_t group_;
  const uid_t user_;
};

}  // namespace migrate
