#pragma once

#include "base/log_quota.h"

namespace migrate {

/// What may be logged of peers that have not proved who they are, by the daemon and its children
/// together, one quota for each kind of line.
struct PeerLog {
  LogQuota no_place;     ///< Turned away because of others.
  LogQuota no_preamble;  ///< Said nothing in time, or nothing of ours.
  LogQuota refused;      ///< Did not prove who it is, or may not.
  LogQuota no_worker;    ///< Is for a session of which nobody here knows.

  /// Errors: kSystem (no memory).
  static Result<PeerLog> create() {
    return PeerLog{MIGRATE_TRY(LogQuota::create()), MIGRATE_TRY(LogQuota::create()),
                   MIGRATE_TRY(LogQuota::create()), MIGRATE_TRY(LogQuota::create())};
  }
};

}  // namespace migrate
