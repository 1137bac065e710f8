#include "libmigrate/move/doubt.h"

#include <utility>

#include "base/log.h"
#include "libmigrate/requests/request_json.h"

namespace migrate {
namespace {

void answer(Decision decision, const std::string& process) {
  const std::string_view word = to_string(*decision.resolution);
  log::warn("process {}: an operator's {} was carried out", process, word);
  decision.client.finish(MIGRATE_DONE, {{"resolved", word}});
}

void refuse(Decision decision, const std::string& process, const std::string& reason) {
  const Error error = make_error(ErrorCode::kRefused, "resolve", "process " + process, reason);
  log::warn("{}", error.message());
  decision.client.finish_failed(MIGRATE_REFUSED, error);
}

}  // namespace

bool Decision::is_due(std::int64_t at_us) const {
  constexpr std::int64_t kCallUs = 2'000'000;
  return made() && at_us - made_us > kCallUs;
}

void refuse_decision(Decision& decision, const std::string& process, const std::string& reason) {
  if (decision.made()) {
    refuse(std::exchange(decision, Decision()), process, reason);
  }
}

Error doubt_error(const Departure& move, const std::string& process) {
  return make_error(move.error().code, "learn whether the move was done of", "process " + process,
                    "it stands still until " + move.destination() +
                        " says whether it runs there (" + move.error().message() +
                        "); see migratectl show, and migratectl resolve if that host is lost");
}

DoubtEnd end_doubt(Departure& move, Decision& decision, const std::string& process) {
  Decision taken = std::exchange(decision, Decision());
  if (taken.made()) {
    log::warn("process {}: an operator asks for {}; asking the destination once more", process,
              to_string(*taken.resolution));
    move.ask_once_more();
  }
  const bool unknown = move.fate() == Fate::kUnknown;
  if (unknown && taken.resolution == Resolution::kGiveUp) {
    answer(std::move(taken), process);
    return DoubtEnd::kGivenUp;
  }
  if (!unknown && move.fate() != Fate::kNeverRan) {
    if (taken.made()) {
      refuse(std::move(taken), process, "the destination has just answered: it ran there");
    }
    return DoubtEnd::kThere;
  }
  // Here it is certain that it never ran there, or an operator takes that on himself.
  const auto back = move.resume_here();
  if (!back) {
    log::error("process {} could not be resumed: {}", process, back.error().message());
  }
  if (taken.made() && !back) {
    taken.client.finish_failed(MIGRATE_FAILED, back.error());
  } else if (taken.resolution == Resolution::kGiveUp) {
    refuse(std::move(taken), process,
           "the destination has just answered: it never ran there, and runs on here");
  } else if (taken.made()) {
    answer(std::move(taken), process);
  }
  return DoubtEnd::kHere;
}

}  // namespace migrate
