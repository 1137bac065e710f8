#pragma once

#include <cstdint>

namespace migrate {

/// Ids from this one on are of no stream: sockets of a guest have them whose connections are over,
/// and of which neither home nor the relay knows any more.
inline constexpr std::uint32_t kFirstOfNoStream = 1U << 31U;

/// Ids from this one on, and below that, are of listeners that a process has made where it is a
/// guest; those that it had at home have ids of streams.
inline constexpr std::uint32_t kFirstMadeListener = kFirstOfNoStream - (1U << 24U);

}  // namespace migrate
