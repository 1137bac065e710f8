#pragma once

#include <sys/types.h>

#include "base/result.h"
#include "libmigrate/proto/image.pb.h"

namespace migrate {

/// Reads what travels inside the image of the objects behind descriptors: what is in pipes (without
/// taking it) and in memory files. The process must be stopped.
/// Errors: kRefused when an object holds more than its carrier takes, kSystem.
Result<void> capture_contents(pid_t process, wire::Image& image);

}  // namespace migrate
