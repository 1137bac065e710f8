#pragma once

#include <utility>

#include "libmigrate/host/worker_loop.h"

namespace migrate {

/// The last phase of a worker, in which its mailbox is closed: whoever has asked for something
/// meanwhile is told why nothing comes of it. Peers are hung up on: they try again, and the next
/// worker or the daemon answers. Owned by the worker's one thread.
class WorkerOver final : public WorkerPhase {
 public:
  /// What everybody is told.
  WorkerOver(int exit_code, Error reason) : exit_code_(exit_code), reason_(std::move(reason)) {}

  int collect_poll_fds(std::vector<pollfd>& /*polled*/) override { return 0; }
  void on_letter(Letter letter) override;
  bool step() override { return false; }
  bool is_last() const override { return true; }

 private:
  const int exit_code_;
  const Error reason_;
};

}  // namespace migrate
