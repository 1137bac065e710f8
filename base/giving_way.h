#pragma once

#include <cstddef>
#include <string_view>

#include "base/unique_fd.h"

namespace migrate {

/// Keeps a thread that nobody waits for out of the way of those that work: it goes on only while
/// there are processors for all that want one. Priorities do not do that: they count within a
/// control group or session (CONFIG_SCHED_AUTOGROUP) only, and the kernel lets a thread that runs
/// go on until the next tick. So it asks after each small piece of work how many threads want to
/// run, and sleeps for a moment if those are too many. However many they are, it gets on, if
/// slowly. Owned by its thread.
class GivingWay {
 public:
  /// `hurries`: it never gives way.
  explicit GivingWay(bool hurries);

  /// So much has been read, sent or written. Sleeps, where it should, after every few pieces of it.
  void worked(std::size_t bytes);
  bool hurries() const { return !load_.valid(); }
  /// It had to give way the last time: pieces are to be smaller.
  bool crowded() const { return crowded_; }

  /// Whether the text of /proc/loadavg tells of more threads than `processors`.
  static bool is_crowded(std::string_view load, unsigned processors);

 private:
  UniqueFd load_;
  bool crowded_ = false;
  std::size_t since_look_ = 0;  // bytes
};

}  // namespace migrate
