#pragma once

#include <sys/types.h>

#include <functional>
#include <string>
#include <vector>

#include "base/result.h"
#include "libmigrate/groups/group_limits.h"
#include "libmigrate/groups/group_places.h"
#include "libmigrate/groups/group_rules.h"
#include "libmigrate/proto/image.pb.h"

namespace migrate {

/// The control groups of a process that comes here: groups of their own for all that come from one
/// group of one host, with the limits that they have there; at its home, those of its deputy. Owned
/// by one thread.
class GuestGroups {
 public:
  /// Whose groups they are to be.
  struct Owner {
    std::string host;      ///< Where the process comes from.
    uid_t user = 0;        ///< Of the process.
    bool trusted = false;  ///< That host may bring root's processes: any limit is taken from it.
    /// Whether the process's user may write into this file: only then a rule puts his process below
    /// a group, unless `trusted`.
    std::function<bool(const std::string& path)> may_write;
  };

  /// None: it is in those of the daemon.
  GuestGroups() = default;

  /// Makes what it can of the groups that are wanted, below that of the daemon or where a rule
  /// says. What was made stays until remove(). Where nothing is wanted, nothing is made.
  static GuestGroups make(const wire::ControlGroups& wanted, const Owner& owner,
                          const GroupRules& rules);
  /// Those that process `deputy` is in.
  static GuestGroups of(pid_t deputy);

  /// Limits that were wanted and that it will not have, for people.
  const std::vector<std::string>& lost() const { return lost_; }
  /// The folders of those that were made, as remove_groups() takes them.
  std::vector<std::string> made() const;
  bool none() const { return seats_.empty(); }

  /// Before it has memory, and once it has its threads: how many there may be does not concern
  /// those that it comes with.
  enum class Step : std::uint8_t { kEarly, kLate };
  /// Puts a process, all threads of it, into those groups that are to be entered at this step.
  /// Errors: kSystem.
  Result<void> enter(pid_t process, Step step) const;

 private:
  /// A group to be in.
  struct Seat {
    GroupPlace place;
    std::vector<wire::GroupLimit> limits;
    bool is_made = false;  ///< Else it was there.
  };

  void add_seat(const GroupPlace& own, const std::string& name, const std::string& rule,
                const wire::ControlGroups& wanted, const Owner& owner);
  Result<void> enter_seat(const Seat& seat, pid_t process) const;

  std::vector<Seat> seats_;
  std::vector<std::string> lost_;
};

/// Removes those of these groups in which nobody is. Takes only what GuestGroups has made.
void remove_groups(const std::vector<std::string>& directories);

/// What a daemon does when it begins: removes what a crash left, and makes room below its own
/// group, which in version 2 must hold no process itself. Only where that group was given to it
/// (systemd's Delegate=).
void prepare_groups(const GroupRules& rules);

}  // namespace migrate
