#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <string>

#include "base/result.h"
#include "libmigrate/proto/home.pb.h"
#include "libmigrate/relay/link.h"

namespace migrate {

/// Signals on their way to a process that is away, in the order in which they were sent at home.
/// Each is kept until the place where the process is says that it has it, and sent again to a later
/// place or by a later link, so that it comes once. Part of HomeRelay; the owner's thread only.
class HomeSignals {
 public:
  void adopt(const wire::HomeRelayState& state);
  void note(wire::HomeRelayState& state) const;

  /// Takes one more (siginfo_t). Errors: kRetry (65536 already wait).
  Result<void> add(std::span<const std::byte> siginfo);
  /// Whether a place that has all before `next` can be given the rest.
  bool may_resume_at(std::uint64_t next) const {
    return next >= first_ && next <= first_ + waiting_.size();
  }
  /// Goes on there: what is not acknowledged is sent again. Only if may_resume_at().
  void resume_at(std::uint64_t next);
  /// Errors: kCorrupt (it was not sent).
  Result<void> acknowledge(std::uint64_t number);
  /// Queues those that were not sent on this link.
  void pump(Link& link);

 private:
  void forget_before(std::uint64_t number);

  std::deque<std::string> waiting_;  // not acknowledged
  std::uint64_t first_ = 1;          // the number of the first of them
  std::uint64_t sent_ = 0;           // the last that was queued on the present link
};

}  // namespace migrate
