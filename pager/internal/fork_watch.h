#pragma once

#include <sys/types.h>

#include <vector>

#include "pager/page_map.h"
#include "pager/page_range.h"

namespace migrate {

/// Tells what the process of one address space withholds from a child that it is forking: memory
/// marked MADV_WIPEONFORK or MADV_DONTFORK, which no userfaultfd event tells of. A thread that
/// forks waits in the kernel until the event is read, so that a look before shows what held for the
/// fork.
///
/// A process is known by its pid or found: the kernel names none for a userfaultfd.
/// Owned by its address space's lock. Reads /proc, as this process sees it; waits for nobody.
class ForkWatch {
 public:
  ForkWatch() = default;
  /// Of the process `pid`, or (0) of one among `tree` and its descendants (0: unknown for good).
  ForkWatch(pid_t tree, pid_t pid) : tree_(tree), pid_(pid) {}

  /// If threads of the process are forking: the ranges withheld, ascending; else null. Valid until
  /// the next call. What is not known to be the process is told from others by the memory of `map`,
  /// which waits for pages.
  const std::vector<PageRange>* look(const PageMap& map);

  /// The host's pid of the process, 0 if it is not known (yet).
  pid_t pid();
  /// No thread is forking.
  void forget() { found_ = 0; }
  /// The watch for the child whose event was read after look(), which knew of the fork or not.
  ForkWatch take_child();

 private:
  /// False if it is another process.
  bool look_at(pid_t pid, const PageMap& map);

  pid_t tree_ = 0;
  pid_t pid_ = 0;
  // By the last look:
  pid_t found_ = 0;
  std::vector<pid_t> forking_;       // threads of it
  bool keeps_child_ = false;         // the only one of them
  std::vector<pid_t> had_children_;  // the first of them
  std::vector<PageRange> withheld_;
  // Where this process comes from:
  pid_t parent_ = 0;
  pid_t parent_thread_ = 0;
  std::vector<pid_t> older_;  // other children of that thread
};

}  // namespace migrate
