#pragma once

#include <sys/types.h>

#include <vector>

#include "libmigrate/image/refusal.h"
#include "libmigrate/proto/image.pb.h"

namespace migrate {

/// Whether the resource limits of a process leave room for what parking it adds to it: the script
/// area with the record, and a pipe. `draft` is its image. What cannot be read is not refused: the
/// freeze finds out then. Const-thread-safe; blocks no longer than /proc does.
std::vector<wire::Refusal> check_room_to_park(pid_t process, const wire::Image& draft);

}  // namespace migrate
