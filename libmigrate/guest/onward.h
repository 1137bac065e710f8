#pragma once

#include <memory>

#include "libmigrate/guest/guest.h"
#include "libmigrate/guest/guest_world.h"
#include "libmigrate/host/event_sink.h"
#include "libmigrate/move/departure.h"
#include "libmigrate/move/source_move.h"
#include "libmigrate/requests/requests.h"

namespace migrate {

/// A move of a guest to its next place, of which Run was sent.
struct OnwardMove {
  EventSink sink;  ///< Who asked for it.
  MoveWait wait = MoveWait::kResumed;
  std::unique_ptr<Departure> move;
};

/// Moves guests on. Onward is the one that there is; tests of the worker have another.
class OnwardMoves {
 public:
  OnwardMoves() = default;
  OnwardMoves(const OnwardMoves&) = delete;
  OnwardMoves& operator=(const OnwardMoves&) = delete;
  virtual ~OnwardMoves() = default;

  /// Tells `sink` of a move for which there is nothing to do: the process is there already, or
  /// there is no such host. False: it is none of these. Blocks on the resolver.
  virtual bool answers_at_once(const MoveRequest& request, EventSink& sink) = 0;
  /// Tries a move until Run is sent. Null: it came to nothing, the process runs on here, and `sink`
  /// was told why.
  virtual std::unique_ptr<OnwardMove> begin(const MoveRequest& request, EventSink sink) = 0;
  /// Asks whether a move would be refused, and tells `sink`.
  virtual void check(const CheckRequest& request, EventSink sink) = 0;
};

class Onward final : public OnwardMoves {
 public:
  /// `guest` and `world` are borrowed, and outlive the moves. `host_clocks`: of this worker's time
  /// namespace.
  Onward(Guest& guest, const ClockOffsets& host_clocks, const GuestWorld& world)
      : guest_(guest), host_clocks_(host_clocks), world_(world) {}

  bool answers_at_once(const MoveRequest& request, EventSink& sink) override;
  std::unique_ptr<OnwardMove> begin(const MoveRequest& request, EventSink sink) override;
  void check(const CheckRequest& request, EventSink sink) override;
  /// The move that a dead worker had begun, if it decided it, or may have. Null: it was given up
  /// half-way, or there is nothing left to do.
  std::unique_ptr<OnwardMove> adopt();

 private:
  SourceMoveOptions options(MoveRequest request, const Address& destination) const;
  SourceMove::Hooks hooks();

  Guest& guest_;
  const ClockOffsets host_clocks_;
  const GuestWorld& world_;
};

}  // namespace migrate
