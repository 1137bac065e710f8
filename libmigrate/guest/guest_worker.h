#pragma once

#include <functional>

#include "libmigrate/guest/guest_world.h"
#include "libmigrate/host/worker_context.h"
#include "libmigrate/state/session_file.h"
#include "transport/peer_trust.h"
#include "transport/preamble.h"

namespace migrate {

/// Destination side: `peer` has been let in by a preamble of purpose kOffer. `become_worker`
/// detaches this process from the daemon, all descriptors but the given one closed; it is called
/// when the offer is taken, before anything is made for it.
void run_destination_worker(const WorkerContext& context, PeerTrust::Peer peer,
                            const Preamble& preamble,
                            const std::function<void(int connection)>& become_worker,
                            const GuestWorld& world = {});

/// Takes over, as a worker, what a dead one left in a session file.
void run_adopted_guest(const WorkerContext& context, SessionFile file, const SessionId& session,
                       const GuestWorld& world = {});

}  // namespace migrate
