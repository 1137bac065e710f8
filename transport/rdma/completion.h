#pragma once

#include <infiniband/verbs.h>

#include <string>

#include "base/error.h"

namespace migrate::rdma {

/// What a failed completion means for the connection to `peer`: kPeerLost where the peer or the way
/// to it is gone, kCorrupt where it broke the rules, kSystem where this side or its device failed.
/// `sent`: of something sent, else of a receive.
Error completion_error(ibv_wc_status status, bool sent, const std::string& peer);

}  // namespace migrate::rdma
