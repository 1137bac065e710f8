#pragma once

#include <sys/types.h>

#include <string>

#include "libmigrate/proto/image.pb.h"

namespace migrate {

/// The global name of a process that was started on this host and has not left it: of no other
/// process of any host, however often pids and boots come again. All zeros in `serial` if it has
/// ended.
wire::GlobalName first_global_name(pid_t process, const std::string& host_name);

/// ORIGIN/SERIAL/EPOCH, numbers in hexadecimal; empty for a name without an origin. Characters that
/// no terminal should see are replaced.
std::string to_string(const wire::GlobalName& name);

}  // namespace migrate
