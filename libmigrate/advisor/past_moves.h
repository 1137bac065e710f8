#pragma once

#include <cstdint>
#include <string>

#include "libmigrate/advisor/forecast.h"
#include "libmigrate/requests/move_words.h"

namespace migrate {

/// What one move came to, by which the next one to the same destination is foreseen.
struct MoveFigures {
  MovePlan plan;
  std::uint32_t threads = 1;
  bool limited = false;        ///< By a bandwidth that somebody chose.
  std::int64_t freeze_us = 0;  ///< 0: not known.
  std::int64_t kept_us = 0;    ///< Of that: to find what of the rounds still counted,
  std::int64_t files_us = 0;   ///< content of memory files,
  std::int64_t restore_us =
      0;  ///< and until the destination was ready: with all pages, if need be.
  std::uint64_t wire_bytes = 0;  ///< In all.
  std::uint64_t rounds_bytes = 0;
  std::int64_t rounds_us = 0;
  std::int64_t independence_us = 0;
};

/// What that tells; what it does not tell is 0.
Speeds speeds_of(const MoveFigures& move);

/// What moves to one destination told, kept below the state directory of the source's host. A
/// value.
class PastMoves {
 public:
  /// `destination`: address, with what else makes a difference. An empty `state_directory` has
  /// none.
  PastMoves(const std::string& state_directory, const std::string& destination);

  /// All 0 if there were none, or their file cannot be read.
  Speeds read() const;
  /// Counts as much as all before it. What is not known there is left as it is. Logs errors:
  /// nothing but a forecast depends on it.
  void note(const Speeds& speeds) const;

 private:
  std::string folder_;  // empty: none
  std::string path_;
};

}  // namespace migrate
