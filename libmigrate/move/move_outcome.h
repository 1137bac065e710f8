#pragma once

namespace migrate {

/// How an attempt ended.
enum class MoveOutcome {
  kCommitted,  ///< It runs at the destination.
  kRefused,    ///< Nothing was changed; see refusals().
  kFailed,     ///< The process runs on here; see error().
  kInDoubt,    ///< Run was sent and no answer came: parked until the peer says what it did.
};

/// What the destination says of the process.
enum class Fate {
  kUnknown,
  kRuns,      ///< There, or it went on from there.
  kNeverRan,  ///< And never will.
  kEnded,     ///< See wait_status().
};

}  // namespace migrate
