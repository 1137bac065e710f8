#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "libmigrate/requests/requests.h"

namespace migrate {

/// Why no further round was made.
enum class RoundsEnd : std::uint8_t {
  kDowntime,   ///< What is left can be sent in the downtime wanted.
  kMost,       ///< There have been as many as were wanted.
  kDirtyRate,  ///< Nearly as many pages were written as were sent, or more.
};
std::string_view to_string(RoundsEnd end);

/// One round, in which pages were sent while the process ran.
struct Round {
  std::uint64_t sent_pages = 0;
  std::uint64_t sent_bytes = 0;     ///< On the wire.
  std::int64_t took_us = 0;         ///< Until the destination had them.
  std::uint64_t written_pages = 0;  ///< By the process, since the round began.
};

/// The rounds of a process so far, and the rule by which they end. A value.
class Rounds {
 public:
  explicit Rounds(RoundLimits limits) : limits_(limits) {}

  /// Notes a round; tells whether it was the last one.
  std::optional<RoundsEnd> note(const Round& round);

  const std::vector<Round>& all() const { return all_; }
  /// Of the last round; bytes a second that the process writes, in whole pages.
  double dirty_rate() const;
  /// Bytes a second that were sent, in all rounds.
  double send_rate() const;

 private:
  bool gets_nowhere() const;

  RoundLimits limits_;
  std::vector<Round> all_;
};

}  // namespace migrate
