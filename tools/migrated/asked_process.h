#pragma once

#include <sys/types.h>

#include "base/result.h"
#include "libmigrate/rights/stand_in.h"
#include "tools/migrated/request.h"

namespace migrate {

/// The real user of a process. Errors: kNotFound, kCorrupt.
Result<uid_t> owner_of(pid_t pid);

/// The first process of a host, or one of ours: a daemon, a worker, the init of a cell.
bool is_ours(pid_t pid);

/// What is done before a process that has no worker yet is looked at, moved or copied, alike.
/// Errors: as owner_of() and may_attach().
template <class Asked>
Result<void> prepare(const Request& request, Asked& asked) {
  asked.pid = request.pid();
  asked.uid = MIGRATE_TRY(owner_of(asked.pid));
  asked.asker = request.asker;
  asked.asker.is_target = request.is_of_client(asked.pid);
  return may_attach(asked.asker, asked.pid);
}

}  // namespace migrate
