#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace migrate {

/// How the memory of a process follows it: a mode of moving, taken apart into what the code asks.
/// A new mode is a new line of the table in move_plan.cc. A value; `word` lives as long as the
/// program.
struct MovePlan {
  std::string_view word = "lazy";  ///< As requests, messages and the registry write it.
  bool push = true;                ///< The source sends pages that nobody has asked for.
  bool prefetch = true;            ///< The destination asks for more than the page of a fault.
  bool all_before_run = false;     ///< The process runs there only when all its pages are there.
  bool only_asks = false;          ///< It is not moved; the destination is asked for its refusals.
};

/// The plan of a move that is asked for by "lazy", "demand" or "eager". Errors: kInvalid.
Result<MovePlan> parse_mode(std::string_view word);
/// The words of parse_mode().
std::vector<std::string> mode_words();
/// The plan of an offer, which may only ask, too. Errors: kInvalid.
Result<MovePlan> parse_offered_mode(std::string_view word);
/// The plan of a move that a worker noted before it died. The pages of a process must come in any
/// case: a word that is not known (of another version) is logged, and the plan is lazy.
MovePlan noted_plan(std::string_view word);
/// That of an offer which only asks.
MovePlan check_plan();

}  // namespace migrate
