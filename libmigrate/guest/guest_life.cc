#include "libmigrate/guest/guest_life.h"

#include <utility>

#include "libmigrate/guest/going_on.h"
#include "libmigrate/guest/serving.h"
#include "libmigrate/host/worker_loop.h"
#include "libmigrate/host/worker_over.h"

namespace migrate {
namespace {

// True: it has left. False: it is back here, or has ended.
bool go_on(Guest& guest, Mailbox& mailbox, OnwardMove& onward) {
  if (onward.move->fate() != Fate::kRuns) {
    GuestInDoubt in_doubt(guest, onward);
    run_phase(mailbox, in_doubt);
    if (in_doubt.settle() != GuestInDoubt::End::kThere) {
      return false;
    }
  }
  GuestLeaving leaving(guest, onward);
  run_phase(mailbox, leaving);
  return true;
}

}  // namespace

void live(Guest& guest, Mailbox& mailbox, OnwardMoves& moves, std::unique_ptr<OnwardMove> onward,
          std::vector<Letter> early) {
  GuestServing serving(guest, moves);
  for (Letter& letter : early) {
    serving.on_letter(std::move(letter));
  }
  for (bool left = false; !left;) {
    if (!onward) {
      run_phase(mailbox, serving);
      onward = serving.take_onward();
    }
    if (!onward) {
      break;
    }
    left = go_on(guest, mailbox, *onward);
    onward.reset();
  }
  const bool ended = guest.exited();
  WorkerOver over(ended ? MIGRATE_ERROR : MIGRATE_FAILED,
                  ended ? guest.ended_error() : left_error(guest.name()));
  run_phase(mailbox, over);
  guest.close();
}

}  // namespace migrate
