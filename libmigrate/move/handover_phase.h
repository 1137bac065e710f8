#pragma once

#include <cstdint>

namespace migrate {

/// How far the handover of a process to one destination is: what connections there are, and what is
/// heard over them. What is known of the process itself is its Fate. The names are those of
/// docs/model/move.pml, which tests/lint/phases_test.py compares.
enum class HandoverPhase : std::uint8_t {
  kOffering,  ///< The destination has promised nothing.
  kOffered,   ///< It has taken the offer, and all connections are there. Nothing was decided.
  kRunSent,   ///< It was told to run the process, and has not answered.
  kCut,       ///< There is no connection. Another one is tried now and then.
  kAsked,     ///< A new connection is there. What became of the process is not heard yet.
  kServing,   ///< It said that the process runs there; pages are served while there are any here.
  kOver,      ///< It has said its last word: nothing is owed to it any more.
};

}  // namespace migrate
