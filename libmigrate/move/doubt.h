#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/clock.h"
#include "libmigrate/host/event_sink.h"
#include "libmigrate/move/departure.h"
#include "libmigrate/requests/requests.h"

namespace migrate {

/// What an operator decided about a session (`migratectl resolve`). Noted by whoever reads the
/// request, carried out and answered by the worker's loop.
struct Decision {
  std::optional<Resolution> resolution;  ///< Nothing: none was made.
  EventSink client;
  std::int64_t made_us = now_us();

  bool made() const { return resolution.has_value(); }
  /// Made, and where the process runs elsewhere it has had the time to call its home until `at_us`.
  bool is_due(std::int64_t at_us = now_us()) const;
};

/// What a client is told of a move of `process` that is in doubt.
Error doubt_error(const Departure& move, const std::string& process);

/// How a doubt ended.
enum class DoubtEnd {
  kThere,    ///< It ran, runs or ended at the destination.
  kHere,     ///< It runs here again.
  kGivenUp,  ///< An operator gave it up.
};

/// Tells who made `decision`, if anybody did, why it is not carried out; it is none afterwards.
void refuse_decision(Decision& decision, const std::string& process, const std::string& reason);

/// Ends the doubt of `move`, whose fate is known or about which `decision` was made. An operator's
/// word counts only if the destination, asked once more, says nothing: this blocks for at most
/// seven seconds then. `process` names it in the log. Answers the client; `decision` is none
/// afterwards.
DoubtEnd end_doubt(Departure& move, Decision& decision, const std::string& process);

}  // namespace migrate
