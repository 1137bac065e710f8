#pragma once

#include <chrono>
#include <cstdint>
#include <optional>

#include "libmigrate/requests/move_words.h"

// What a move is told besides its mode.

namespace migrate {

/// How fast the memory of a process follows it; see PageServerOptions.
struct PushLimits {
  std::optional<std::uint64_t> bytes_per_second{};  ///< Nothing: as the source's host is set.
  std::chrono::milliseconds deadline{0};
};

/// How long a program with hooks may take to come to a point, if nobody says otherwise.
inline constexpr std::chrono::milliseconds kHookWait{60'000};

/// When a process that is sent in rounds while it runs has been sent often enough (modes precopy
/// and hybrid): whichever comes first, or that it writes faster than can be sent.
struct RoundLimits {
  std::uint32_t most = 5;                      ///< At least 1.
  std::chrono::microseconds downtime{10'000};  ///< What is left can be sent in that time.
};

/// How the mode of a move is chosen for it (mode auto).
struct ModeWish {
  Wish best = Wish::kStop;
  std::chrono::milliseconds sample{200};  ///< For so long it is watched how much it writes.
};

}  // namespace migrate
