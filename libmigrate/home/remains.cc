#include "libmigrate/home/remains.h"

#include "libmigrate/state/phase.h"

namespace migrate {

TakenOverAs taken_over_as(HomePhase phase, const wire::HomeSession& noted, Found found) {
  if (found == Found::kGone && noted.has_keeper()) {
    return TakenOverAs::kKeeper;
  }
  if (verdict(phase, false, found != Found::kGone) == SessionVerdict::kEnded) {
    return TakenOverAs::kEnded;
  }
  if (found == Found::kParked) {
    return TakenOverAs::kDeputy;
  }
  if (phase == HomePhase::kStayed) {  // Even if it has ended since.
    return TakenOverAs::kStayed;
  }
  // One that never left went on here, however it did.
  if (!noted.has_outgoing() || (found == Found::kRunsOn && !noted.outgoing().confirmed())) {
    return TakenOverAs::kStayed;
  }
  // Without a note of its streams, its place could not resume the link.
  return noted.outgoing().confirmed() && noted.has_relay() ? TakenOverAs::kKilled
                                                           : TakenOverAs::kAskAbout;
}

}  // namespace migrate
