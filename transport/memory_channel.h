#pragma once

#include <memory>
#include <utility>

#include "base/result.h"
#include "transport/channel.h"

namespace migrate {

/// Most messages and bytes that wait in one direction of a memory channel before send() blocks; one
/// message always fits.
inline constexpr std::size_t kMemoryChannelMessages = 64;
inline constexpr std::size_t kMemoryChannelBytes = 8U << 20U;

/// Two joined channels within this process, for tests and for both sides on one host. Each end
/// may be destroyed first; the other then gets kPeerLost after what was sent before.
/// Kernel: eventfd. Errors: kSystem (no descriptors left).
Result<std::pair<std::unique_ptr<Channel>, std::unique_ptr<Channel>>> make_memory_channels();

}  // namespace migrate
