#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "base/result.h"
#include "libmigrate/home/forwards.h"
#include "libmigrate/host/stop_points.h"
#include "libmigrate/requests/link_rules.h"
#include "transport/channel.h"

namespace migrate {

/// What the phases of a home worker have of the world around them. Tests have another one.
struct HomeSurroundings {
  /// Makes a connection to the worker of the process at a place, which takes a request by it. May
  /// block for ten seconds.
  using Connect = std::function<Result<std::unique_ptr<Channel>>(const Whereabouts&)>;

  StopPoints stops;
  /// After so many seconds of silence children of a process are given up; 0: never.
  std::uint32_t end_waiting_s = 0;
  LinkRules links;         ///< Which ones of the process's are made.
  int child_signals = -1;  ///< A signalfd for SIGCHLD, borrowed; -1: none.
  Connect connect;
  std::function<std::int64_t()> clock = now_us;  ///< Microseconds that only grow.

  /// Sends `request` to the worker at `where`. Errors: as Connect.
  Result<std::unique_ptr<Channel>> send_request(const Whereabouts& where,
                                                const nlohmann::json& request) const;
  /// Reads what child_signals has, so that it does not poll readable: who looks at the deputy needs
  /// no more than to be woken.
  void drain_child_signals() const;
};

}  // namespace migrate
