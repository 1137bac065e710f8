#pragma once

#include <cstdint>

#include "base/result.h"
#include "libmigrate/proto/image.pb.h"

namespace migrate {

/// How far an image has come.
enum class ImageStage : std::uint8_t {
  kDraft,  ///< Inspected while the process ran: no registers or signal actions yet.
  kFinal,  ///< Captured from the frozen process.
};

/// Whether an image that a peer sent can be one process at all: every index leads somewhere, ranges
/// are page ranges of user space that do not overlap, kernel structures have their size, contents
/// fit into what holds them. Whoever restores relies on this and checks none of it again; whether
/// this host can take the process is for check_against_host(). Const-thread-safe. Blocks: no.
/// Errors: kCorrupt, naming the member.
Result<void> check_form(const wire::Image& image, ImageStage stage);

}  // namespace migrate
