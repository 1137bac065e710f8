#pragma once

#include <poll.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "libmigrate/proto/control.pb.h"
#include "transport/channel.h"
#include "transport/preamble.h"

namespace migrate {

/// The pages that a guest is owed, as its worker sees them. GuestPages is what there is; tests of
/// the worker have another. Threads: the worker's.
class OwedPages {
 public:
  OwedPages() = default;
  OwedPages(const OwedPages&) = delete;
  OwedPages& operator=(const OwedPages&) = delete;
  virtual ~OwedPages() = default;

  /// A connection of the source, of purpose kUrgent or kBulk. follow() goes on over a pair of them.
  virtual void take(Purpose purpose, std::unique_ptr<Channel> channel) = 0;
  /// What polls readable when there is news for follow().
  virtual void collect_poll_fds(std::vector<pollfd>& polled) = 0;
  /// Does what there is to do now; `independent`: nothing is owed any more.
  virtual void follow(bool independent) = 0;
  /// The source knows that nothing is owed: ends what serves them.
  virtual void stop() = 0;

  /// Everything has come. Whoever holds a duplicate of the userfaultfd must close it now.
  virtual bool done() const = 0;
  /// Something is owed, and there is no link to who has it.
  virtual bool waits() const = 0;
  virtual std::uint64_t owed() const = 0;
  /// Owed to the process itself, not its children, when it was last seen.
  virtual std::uint64_t owed_to_first() const = 0;
  /// The address space that came here has ended, or made way for another (execve).
  virtual bool first_gone() const = 0;
  virtual wire::Progress progress() const = 0;
};

}  // namespace migrate
