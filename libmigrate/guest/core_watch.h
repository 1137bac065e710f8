#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <string>

#include "base/clock.h"
#include "base/unique_fd.h"
#include "libmigrate/guest/core_file.h"
#include "libmigrate/proto/image.pb.h"
#include "libmigrate/relay/guest_relay.h"

namespace migrate {

/// Watches a process while it is owed pages, so that its core dump, for which the kernel does not
/// wait, can be found and named as incomplete. Owned by one thread.
class CoreWatch {
 public:
  /// `clock` gives microseconds that only grow.
  explicit CoreWatch(std::function<std::int64_t()> clock = now_us) : clock_(std::move(clock)) {}

  /// Looks where the dump of `process`, by its pid on this host, would go; every 2 ms at most, so
  /// that it may be called at each fault. Of a process that has ended nobody knows that any more.
  /// `is_gone`: the address space that came here is no longer there.
  void look(pid_t process, bool is_gone);

  /// The process has ended with `status`, as waitpid gives it, while so many pages of it were owed.
  /// Renames its core dump, with the rights of `credentials`, and says in the log what it lacks;
  /// `name` is the process's there. Nothing where there is no dump or it lacks nothing.
  IncompleteCore note_end(pid_t process, int status, std::uint64_t owed_pages,
                          const wire::Credentials& credentials, const std::string& name);

  /// It runs another program now, to which no page is owed.
  bool has_execed() const { return has_execed_; }

 private:
  const std::function<std::int64_t()> clock_;
  bool has_execed_ = false;
  std::string first_stack_;     // of its program, as first seen
  UniqueFd working_directory_;  // of the process, as last seen
  CoreOwner owner_;             // the same
  std::int64_t next_look_us_ = 0;
};

}  // namespace migrate
