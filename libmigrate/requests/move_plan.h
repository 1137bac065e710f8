#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "libmigrate/requests/move_words.h"

namespace migrate {

/// The plan of a move in the mode `word`, one of kModes. Errors: kInvalid.
Result<MovePlan> parse_mode(std::string_view word);
/// The words of kModes.
std::vector<std::string> mode_words();
/// The plan of an offer, which may only ask, too, and leaves nothing to be decided. Errors:
/// kInvalid.
Result<MovePlan> parse_offered_mode(std::string_view word);
/// The plan of a move that a worker noted before it died. The pages of a process must come in any
/// case: a word that is not known (of another version) is logged, and the plan is lazy.
MovePlan noted_plan(std::string_view word);
/// That of an offer which only asks, for a move in the mode `of`.
MovePlan check_plan(const MovePlan& of = {});

}  // namespace migrate
