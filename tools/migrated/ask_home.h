#pragma once

#include <string>

#include "base/result.h"
#include "libmigrate/host/worker_context.h"
#include "tools/migrated/home_answers.h"
#include "tools/migrated/local_request.h"
#include "transport/address.h"
#include "transport/peer_trust.h"

namespace migrate {

/// Asks the home of the process, which this host may be, or of a name, which `host` says (empty:
/// this one). Blocks as find_host() and then up to 10 s. Errors: that it cannot be asked
/// (kPeerLost and such; it may be later), kInvalid. What it says itself is the answer.
Result<Answer> ask_home(const LocalService& service, const HomeQuestion& question,
                        const std::string& host = {});

/// The same of the home at `address`.
Result<Answer> ask_host(const PeerTrust& trust, const Address& address,
                        const HomeQuestion& question);

/// Answers one that another host asks, whose daemon `peer` is, over its channel. Blocks up to 5 s
/// for the question.
void answer_host(const WorkerContext& context, PeerTrust::Peer peer);

}  // namespace migrate
