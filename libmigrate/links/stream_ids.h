#pragma once

#include <cstdint>

namespace migrate {

/// Ids from this one on, and below the next, are of listeners that a process has made where it is a
/// guest; those that it had at home have ids of streams.
inline constexpr std::uint32_t kFirstMadeListener = 1U << 30U;

/// Ids from this one on are of no stream: sockets of a guest have them whose connections are over,
/// and of which neither home nor the relay knows any more.
inline constexpr std::uint32_t kFirstOfNoStream = 1U << 31U;

}  // namespace migrate
