#pragma once

#include <algorithm>
#include <cstdint>

namespace migrate::carriers {

/// The time since `read_ns` of the source's clock; none where that is not known. Whatever a peer
/// says of its clocks gives some time.
constexpr std::uint64_t time_since(std::uint64_t read_ns, std::uint64_t source_now_ns) {
  const auto elapsed = static_cast<std::int64_t>(source_now_ns - read_ns);
  return read_ns == 0 || elapsed < 0 ? 0 : static_cast<std::uint64_t>(elapsed);
}

/// What is left of a timer; at least one unit if it is armed.
constexpr std::uint64_t time_left(std::uint64_t value, std::uint64_t elapsed) {
  return value > elapsed ? value - elapsed : std::min<std::uint64_t>(value, 1);
}

}  // namespace migrate::carriers
