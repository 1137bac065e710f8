#pragma once

#include <vector>

#include "base/result.h"
#include "libmigrate/host/worker_context.h"
#include "libmigrate/image/refusal.h"
#include "libmigrate/proto/control.pb.h"
#include "libmigrate/requests/move_words.h"
#include "transport/peer_identity.h"

namespace migrate {

/// Which network the process is to have here: this host's, too, if its home tells of none.
NetworkOf network_of(const wire::Offer& offer);

/// Why this host does not take what `source` offers; empty if it does. Who may not bring it learns
/// nothing else. Refusals are logged. Blocks: reads files, the registry and the user database.
/// Errors: as Registry and host facts.
Result<std::vector<wire::Refusal>> judge_offer(const WorkerContext& context,
                                               const PeerIdentity& source, const wire::Offer& offer,
                                               const wire::HostFacts& own);

/// Why sockets that have names of their home's cannot be made in `network`: only home's has these.
Refusals check_bound_sockets(NetworkOf network, const wire::Objects& objects);

/// Adds to a reply that refuses an offer which files of the program are not here, if that is all
/// that is in the way: its source may send what they hold. Blocks as judge_offer().
void tell_missing_files(const WorkerContext& context, const PeerIdentity& source,
                        const wire::Offer& offer, const wire::HostFacts& own,
                        wire::OfferReply& reply);

}  // namespace migrate
