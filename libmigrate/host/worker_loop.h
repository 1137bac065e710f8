#pragma once

#include <poll.h>

#include <vector>

#include "libmigrate/host/mailbox.h"

namespace migrate {

/// A phase in a worker's life, as its loop sees it. Owned by the worker's one thread.
class WorkerPhase {
 public:
  WorkerPhase() = default;
  WorkerPhase(const WorkerPhase&) = delete;
  WorkerPhase& operator=(const WorkerPhase&) = delete;
  virtual ~WorkerPhase() = default;

  /// Adds the descriptors that wake it to `polled`, which are read in step(); gives the longest
  /// time until its next step, in milliseconds.
  virtual int collect_poll_fds(std::vector<pollfd>& polled) = 0;
  /// Takes a letter. Whoever asked for something in it is always answered, now or later.
  virtual void on_letter(Letter letter) = 0;
  /// Does what there is to do now. False: this phase is over.
  virtual bool step() = 0;
  /// Whether no phase comes after it.
  virtual bool is_last() const { return false; }
};

/// The one loop of a worker: letters first, then a step, until `phase` is over; waits in between.
/// Before the last phase the mailbox is closed, so that it sees every letter that was ever sent.
void run_phase(Mailbox& mailbox, WorkerPhase& phase);

}  // namespace migrate
