#pragma once

#include <sys/types.h>

#include "base/result.h"
#include "libmigrate/carriers/memory_content.h"
#include "libmigrate/proto/image.pb.h"

namespace migrate {

/// Reads what travels inside the image of the objects behind descriptors: what is in pipes (without
/// taking it) and where memory files have data. Gives the files of these, whose content follows the
/// image. The process must be stopped.
/// Errors: kRefused when an object holds more than its carrier takes, kSystem.
Result<carriers::ContentFiles> capture_contents(pid_t process, wire::Image& image);

}  // namespace migrate
