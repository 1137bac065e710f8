#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "libmigrate/guest/guest_pages.h"
#include "libmigrate/host/letter_request.h"
#include "libmigrate/host/worker_loop.h"
#include "libmigrate/move/control_channel.h"

namespace migrate {

/// What an arrival waits for before the process runs here. Only the source's connections are of use
/// until then; what others ask for is kept, to be done once the process runs, or refused if it
/// never does. Owned by the worker's thread.
class Awaiting : public WorkerPhase {
 public:
  /// All are borrowed. `clock` gives microseconds that only grow.
  Awaiting(ControlChannel& control, GuestPages& pages, EarlyLetters& early, int timeout_ms,
           std::function<std::int64_t()> clock);

  int collect_poll_fds(std::vector<pollfd>& polled) override;
  void on_letter(Letter letter) final;

 protected:
  /// The source has come again, as if Run had been sent.
  virtual void on_resume() = 0;

  std::int64_t left_us() const { return deadline_us_ - clock_(); }
  ControlChannel& control() { return control_; }
  GuestPages& pages() { return pages_; }

 private:
  ControlChannel& control_;
  GuestPages& pages_;
  EarlyLetters& early_;
  const std::function<std::int64_t()> clock_;
  const std::int64_t deadline_us_;
};

/// Waits for the urgent and the bulk connection (kPrepared).
class AwaitConnections final : public Awaiting {
 public:
  AwaitConnections(ControlChannel& control, GuestPages& pages, EarlyLetters& early,
                   std::function<std::int64_t()> clock = now_us);
  bool step() override;
  /// Once step() is false. Errors: kRetry (not in time), kPeerLost (the source gave up), kCorrupt.
  Result<void> outcome() const { return outcome_; }

 protected:
  void on_resume() override;

 private:
  Result<bool> look();

  Result<void> outcome_;
};

/// Waits for the image, while pages come ahead of it (GuestPages::stage()).
class AwaitFinal final : public Awaiting {
 public:
  AwaitFinal(ControlChannel& control, GuestPages& pages, EarlyLetters& early,
             std::function<std::int64_t()> clock = now_us);
  int collect_poll_fds(std::vector<pollfd>& polled) override;
  bool step() override;
  /// Once step() is false. Errors: kRetry (the source says nothing), kPeerLost, kRefused (the
  /// source failed), kCorrupt (also of the pages).
  Result<wire::Final> outcome() { return std::move(outcome_); }

 protected:
  void on_resume() override;

 private:
  Result<bool> look();

  Result<wire::Final> outcome_ = wire::Final();
};

/// Waits to be told to run the process (kAwaitsRun).
class AwaitRun final : public Awaiting {
 public:
  /// `name`: of the process.
  AwaitRun(ControlChannel& control, GuestPages& pages, EarlyLetters& early, std::string name,
           std::function<std::int64_t()> clock = now_us);
  bool step() override;
  /// Once step() is false. Errors: kRetry (not in time), kPeerLost, kRefused (the source failed),
  /// kCorrupt.
  Result<wire::Run> outcome() { return std::move(outcome_); }

 protected:
  void on_resume() override;

 private:
  Result<bool> look();

  const std::string name_;
  bool came_again_ = false;
  Result<wire::Run> outcome_ = wire::Run();
};

}  // namespace migrate
