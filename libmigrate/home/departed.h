#pragma once

#include <memory>
#include <string>

#include "libmigrate/home/home_record.h"
#include "libmigrate/home/home_surroundings.h"
#include "libmigrate/home/parked_here.h"
#include "libmigrate/host/event_sink.h"
#include "libmigrate/move/departure.h"
#include "libmigrate/move/move_outcome.h"
#include "libmigrate/requests/requests.h"

namespace migrate {

/// A process that has left its home, or may have: its move, and what is left of it here.
struct Departed {
  std::unique_ptr<Departure> move;
  std::unique_ptr<ParkedDeputy> deputy;  ///< Null: it was killed, or has ended.
  std::unique_ptr<ParkedKeeper> keeper;  ///< Null: there was none, or it was killed or ended.
};

/// Who asked for the move, and for what he waits. Nobody, if his worker died.
struct Asking {
  EventSink client;
  MoveWait wait = MoveWait::kResumed;
  std::string destination;  ///< As he wrote it.
};

/// A process that is to leave its home. SourceMove is behind it; tests have another. Owned by one
/// thread.
class HomeLeaving {
 public:
  HomeLeaving() = default;
  HomeLeaving(const HomeLeaving&) = delete;
  HomeLeaving& operator=(const HomeLeaving&) = delete;
  virtual ~HomeLeaving() = default;

  /// Tries to move it, for as long as it was asked to. Blocks.
  virtual MoveOutcome attempt() = 0;
  /// After kCommitted or kInDoubt, once: the move, and what is parked here.
  virtual Departed depart() = 0;
  /// Tells `client` why it was not moved. What depart() gave must still be there.
  virtual void tell_not_moved(EventSink& client, MoveOutcome outcome) = 0;
};

/// Looks whether the deputy was killed or stopped. Returns the signal that did so, SIGKILL or the
/// one that stopped it, 0 for none. Of one that was killed, `departed.deputy` is null afterwards,
/// and its pages are served no more.
int watch_deputy(const HomeSurroundings& around, const HomeRecord& record, Departed& departed);

}  // namespace migrate
