#pragma once

#include <sys/types.h>

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "libmigrate/carriers/carrier.h"
#include "libmigrate/proto/image.pb.h"
#include "libmigrate/trace/script.h"

namespace migrate {

/// Adds the calls by which a process that has no descriptors makes the socket pairs of `objects`,
/// with the effective ids of `wanted`: SO_PEERCRED gives both ends those of who made them. `own`
/// are the credentials that it has now, and afterwards. Returns where the script leaves the
/// descriptors.
std::uint64_t script_socket_pairs(Script& script, const wire::Objects& objects,
                                  const wire::Credentials& wanted, const wire::Credentials& own);

/// Takes them out of `process`, which keeps its own. To be called when the script has run at
/// `place`. Errors: kSystem.
Result<std::vector<carriers::MadeSocketPair>> fetch_socket_pairs(const Script& script,
                                                                 std::uint64_t place, pid_t process,
                                                                 const wire::Objects& objects);

}  // namespace migrate
