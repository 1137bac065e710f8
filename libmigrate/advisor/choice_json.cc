#include "libmigrate/advisor/choice_json.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <string>

#include "libmigrate/requests/words.h"

namespace migrate {
namespace {

nlohmann::json mode_json(const Forecast& forecast) {
  nlohmann::json object = {{"mode", forecast.plan.word}};
  if (!forecast.why_not.empty()) {
    object["why_not"] = forecast.why_not;
    return object;
  }
  object["stop_us"] = forecast.stop_us;
  object["bytes"] = forecast.bytes;
  object["least_bytes"] = forecast.least_bytes;
  object["independence_us"] =
      forecast.independence_us ? nlohmann::json(*forecast.independence_us) : nullptr;
  return object;
}

nlohmann::json ratio(double measured, double foretold) {
  constexpr double kDigits = 1000;
  return foretold > 0 ? nlohmann::json(std::round(measured / foretold * kDigits) / kDigits)
                      : nullptr;
}

}  // namespace

nlohmann::json to_json(const ModeChoice& choice) {
  nlohmann::json modes = nlohmann::json::array();
  for (const Forecast& forecast : choice.all) {
    modes.push_back(mode_json(forecast));
  }
  const MoveFacts& facts = choice.facts;
  return {{"wish", word_for(choice.wish, kWishes)},
          {"mode", choice.best().plan.word},
          {"modes", std::move(modes)},
          {"pages", facts.memory.pages},
          {"watched_us", std::llround(facts.memory.writes.watched_us())},
          {"written_share", facts.memory.writes.whole()},
          {"bytes_per_second", std::llround(facts.speeds.behind)},
          {"speeds_from", facts.speeds_from}};
}

nlohmann::json to_prediction(const Forecast& forecast, std::int64_t stop_us, std::uint64_t bytes,
                             std::int64_t independence_us) {
  return {{"stop", ratio(static_cast<double>(stop_us), static_cast<double>(forecast.stop_us))},
          {"bytes", ratio(static_cast<double>(bytes), static_cast<double>(forecast.bytes))},
          {"independence", ratio(static_cast<double>(independence_us),
                                 static_cast<double>(forecast.independence_us.value_or(0)))}};
}

}  // namespace migrate
