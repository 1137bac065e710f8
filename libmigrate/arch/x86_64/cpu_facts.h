#pragma once

#include <cstdint>

namespace migrate::arch {

/// The extended state components that the kernel has enabled (XCR0); 0 without XSAVE.
std::uint64_t enabled_extended_state();

/// Bytes of the XSAVE area with all of them; 0 without XSAVE.
std::uint32_t extended_state_bytes();

}  // namespace migrate::arch
