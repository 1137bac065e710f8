#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "libmigrate/host/event_sink.h"
#include "libmigrate/proto/home.pb.h"
#include "libmigrate/relay/guest_relay.h"

namespace migrate {

/// How a process ended that was away from home. A value.
struct ProcessEnd {
  int wait_status = 0;         ///< As waitpid gives it.
  std::string lost;            ///< Why it did not end by itself; empty: it did.
  IncompleteCore core;         ///< A core dump that lacks pages.
  bool left_children = false;  ///< Descendants of it lived when it ended.

  /// As the place tells of it over the relay.
  static ProcessEnd from(const wire::RelayExited& exited);
  /// What the row keeps besides the last move's result.
  bool is_remarkable() const { return !lost.empty() || core.lacks_pages != 0; }
};

/// Adds to the result of a move what is_remarkable() of the end that came later.
void add_end(nlohmann::json& result, const ProcessEnd& end);
/// Tells the end to a client that waits for it, with the `result` of its move.
void tell_end(EventSink& client, nlohmann::json result, const ProcessEnd& end);

}  // namespace migrate
