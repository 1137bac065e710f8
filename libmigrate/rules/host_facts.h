#pragma once

#include "base/result.h"
#include "libmigrate/proto/image.pb.h"

namespace migrate {

/// What matters of this machine to a process that comes or goes: CPU features, XSAVE layout, page
/// size, vDSO, boot. Reads /proc; blocks briefly. Errors: kSystem, kNotFound.
Result<wire::HostFacts> host_facts();

}  // namespace migrate
