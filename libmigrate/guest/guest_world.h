#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

#include "base/result.h"
#include "base/unique_fd.h"
#include "libmigrate/cell/cell.h"
#include "libmigrate/cell/cell_control.h"
#include "libmigrate/host/event_sink.h"
#include "libmigrate/host/worker_context.h"
#include "libmigrate/links/gateway.h"
#include "libmigrate/move/departure.h"
#include "libmigrate/move/source_move.h"
#include "libmigrate/proto/session.pb.h"
#include "libmigrate/restore/seed_restorer.h"
#include "transport/channel.h"

namespace migrate {

/// A cell that was made for a process which arrives.
struct NewCell {
  std::unique_ptr<CellControl> control;
  pid_t init = 0;                  ///< Of the cell, as this host sees it.
  UniqueFd userfault;              ///< Of its seed.
  std::optional<Gateway> gateway;  ///< Of its network, if it has one of its own.
  /// Takes hold of the seed, for as long as `control` is there. `trusted`: see FileUser. Errors: as
  /// Restorer::create.
  std::function<Result<std::unique_ptr<SeedRestorer>>(bool trusted)> make_restorer;
};

/// What the worker of a guest makes or reaches beyond its own process. Tests have another.
struct GuestWorld {
  /// That which there is: Cell and Restorer, a connection to the home's address, SourceMove and
  /// ParkedProcess.
  GuestWorld();

  /// Errors: as Cell::create.
  std::function<Result<NewCell>(const CellOptions& options)> make_cell;
  /// Makes a connection to the home that is noted, and proves to be of the process. Blocks up to
  /// `timeout_ms`. Errors: as PeerTrust::connect.
  std::function<Result<std::unique_ptr<Channel>>(const WorkerContext& context,
                                                 const wire::CellSession& noted, int timeout_ms)>
      connect_home;
  /// Tries to move a guest on for so many seconds. Null: it came to nothing, the process runs on
  /// here, and `sink`, which outlives the move, was told why.
  std::function<std::unique_ptr<Departure>(SourceMoveOptions options, SourceMove::Hooks hooks,
                                           double seconds, EventSink& sink)>
      attempt_move;
  /// Goes on with the noted move if its process is parked, with its record at `area`. Errors: as
  /// ParkedProcess::adopt.
  std::function<Result<std::unique_ptr<Departure>>(SourceMoveOptions options,
                                                   SourceMove::Hooks hooks, std::uint64_t area,
                                                   const wire::Outgoing& noted, EventSink& sink)>
      adopt_move;
  std::function<std::int64_t()> clock;  ///< Microseconds that only grow.
};

}  // namespace migrate
