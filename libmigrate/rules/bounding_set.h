#pragma once

#include <cstdint>

#include "libmigrate/proto/image.pb.h"

namespace migrate {

/// The capabilities in the bounding set of this process, which users' processes have too, as bits
/// (capabilities(7)). None where the kernel does not tell.
std::uint64_t own_bounding_set();
/// Those in that of some thread of `image`.
std::uint64_t bounding_sets_of(const wire::ProcessImage& image);

}  // namespace migrate
