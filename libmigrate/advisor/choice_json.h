#pragma once

#include <nlohmann/json_fwd.hpp>

#include "libmigrate/advisor/forecast.h"

namespace migrate {

/// What a result tells of a choice: the wish, the mode, by what it was chosen, and what each mode
/// was thought to come to.
nlohmann::json to_json(const ModeChoice& choice);

/// What a move in the chosen mode came to, as ratio to what was foretold: stop, bytes,
/// independence. Null where one of the two is not known, or both are nothing.
nlohmann::json to_prediction(const Forecast& forecast, std::int64_t stop_us, std::uint64_t bytes,
                             std::int64_t independence_us);

}  // namespace migrate
