#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "base/idle_pause.h"
#include "libmigrate/guest/guest_letters.h"
#include "libmigrate/guest/onward.h"
#include "libmigrate/move/point_wait.h"
#include "libmigrate/requests/requests.h"

namespace migrate {

/// The process runs here, or has ended and children or its home still need something (kServing,
/// kIndependent, kEnded, kEndedIndependent).
class GuestServing final : public GuestPhaseRunner {
 public:
  /// Both are borrowed.
  GuestServing(Guest& guest, OnwardMoves& moves) : GuestPhaseRunner(guest), moves_(moves) {}

  /// Whoever waits for a move that it never came to is told to ask again.
  ~GuestServing() override;

  int collect_poll_fds(std::vector<pollfd>& polled) override;
  bool step() override;

  /// Why it is over: Run was sent for a move on. Null: all of the process is over.
  std::unique_ptr<OnwardMove> take_onward() { return std::move(onward_); }

 protected:
  void on_request(GuestRequest request) override;
  void on_resume(std::unique_ptr<ControlChannel> control) override;
  void on_pages(Purpose purpose, std::unique_ptr<Channel> channel) override;

 private:
  /// Carries requests out: a function for each kind of WorkerRequest.
  struct Answers;

  /// A request to be carried out when nothing is owed any more.
  struct PendingMove {
    MoveRequest request;
    EventSink sink;
    std::optional<PointWait> point{};  ///< Until the process is where it is to be moved.
  };

  /// What is to be done with a pending move.
  enum class Turn : std::uint8_t { kLater, kBegins, kOver };

  std::optional<Asker> judge(GuestRequest& request) const;
  void refuse_moves(const Error& error);
  void begin_next();
  Turn look_at(PendingMove& move);

  OnwardMoves& moves_;
  std::vector<PendingMove> pending_;
  std::unique_ptr<OnwardMove> onward_;
  IdlePause owed_pause_{50, 400};  // Nothing wakes the worker when pages come.
};

/// What is said of `process`, as people know it, once Run was sent for a move on.
Error leaving_error(const std::string& process);
/// The same when it runs here no more.
Error left_error(const std::string& process);

}  // namespace migrate
