#include "libmigrate/guest/guest_worker.h"

#include <utility>
#include <vector>

#include "base/log.h"
#include "libmigrate/guest/arrival.h"
#include "libmigrate/guest/going_on.h"
#include "libmigrate/guest/guest_adoption.h"
#include "libmigrate/guest/guest_life.h"
#include "libmigrate/guest/onward.h"

namespace migrate {

void run_destination_worker(const WorkerContext& context, PeerTrust::Peer peer,
                            const Preamble& preamble,
                            const std::function<void(int connection)>& become_worker,
                            const GuestWorld& world) {
  auto arrived =
      Arrival(context, std::move(peer), preamble.session, become_worker, world).take_in();
  if (!arrived) {
    return;
  }
  Onward moves(*arrived->guest, arrived->host_clocks, world);
  live(*arrived->guest, *arrived->mailbox, moves, nullptr, std::move(arrived->early));
}

void run_adopted_guest(const WorkerContext& context, SessionFile file, const SessionId& session,
                       const GuestWorld& world) {
  auto adopted = GuestAdoption(context, session, world).take_over(std::move(file));
  if (!adopted) {
    log::error("session {} could not be taken over: {}", to_hex(session),
               adopted.error().message());
    return;
  }
  if (!*adopted) {
    return;
  }
  GuestAdoption::Adopted& taken = **adopted;
  Onward moves(*taken.guest, taken.host_clocks, world);
  auto onward = moves.adopt();
  if (!onward && has_left(taken.guest->phase())) {
    taken.guest->close();
    return;
  }
  live(*taken.guest, *taken.mailbox, moves, std::move(onward), {});
}

}  // namespace migrate
