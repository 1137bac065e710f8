#pragma once

#include <vector>

#include "libmigrate/groups/guest_groups.h"
#include "libmigrate/host/worker_context.h"
#include "libmigrate/proto/control.pb.h"
#include "libmigrate/proto/session.pb.h"
#include "transport/peer_identity.h"

namespace migrate {

/// Whether the process that is offered, by its id, runs on this host already. Blocks on the
/// registry.
bool runs_here(const WorkerContext& context, const wire::Offer& offer);

/// The control groups that this host has for the process that `source` offers. Those that are made
/// stay until remove_groups() of GuestGroups::made(). Blocks on the registry.
GuestGroups groups_for_offer(const WorkerContext& context, const PeerIdentity& source,
                             const wire::Offer& offer);

/// Why this host does not take the process into these groups: MEMORY, if it holds more than they
/// let it have, and GROUP_LIMITS, if the host insists on its limits and they lack some.
std::vector<wire::Refusal> check_groups(const WorkerContext& context, const wire::Offer& offer,
                                        const GuestGroups& groups);

/// For whoever moves the process on from here, and for a new worker.
void note_groups(const GuestGroups& groups, const wire::Offer& offer, wire::CellSession& noted);
/// Once the process with pid `process` is in them.
void note_places(pid_t process, wire::CellSession& noted);
/// Those that were made for the process of which nothing is left.
void remove_noted_groups(const wire::CellSession& noted);

/// Whether the process can have here who has logged in at its home: himself, or, where the source
/// may bring root's processes (`trusted`), anybody.
bool keeps_login(const wire::Offer& offer, bool trusted);

}  // namespace migrate
