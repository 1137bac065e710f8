#pragma once

#include <cstdint>

#include "libmigrate/proc/proc_text.h"

namespace migrate::inspect {

/// What the VmFlags of an entry of smaps say, as bits of wire::Advice.
std::uint32_t advice_of(const MapsEntry& entry);

}  // namespace migrate::inspect
