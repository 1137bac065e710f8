#include "libmigrate/guest/guest_world.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "base/clock.h"
#include "base/log.h"
#include "libmigrate/guest/guest_record.h"
#include "libmigrate/move/not_moved.h"
#include "libmigrate/park/parked_process.h"
#include "libmigrate/restore/restorer.h"
#include "transport/proof.h"

namespace migrate {
namespace {

struct CellWithNetwork {
  Cell cell;
  std::optional<Gateway> gateway;
};

// A host that cannot give it a network of its own (capabilities, /dev/net/tun) lets it use its own.
Result<CellWithNetwork> make_cell_with_network(CellOptions options) {
  if (options.network) {
    auto cell = Cell::create(options);
    auto gateway = cell ? Gateway::create(cell->init(), *options.network)
                        : Result<Gateway>(fail(cell.error()));
    if (gateway) {
      return CellWithNetwork{std::move(*cell), std::move(*gateway)};
    }
    log::warn("new connections of a process are made from this host, not its home: {}",
              gateway.error().message());
    if (cell) {
      cell->end_and_wait();
    }
    options.network.reset();
  }
  return CellWithNetwork{MIGRATE_TRY(Cell::create(options)), std::nullopt};
}

Result<NewCell> make_new_cell(const CellOptions& options) {
  CellWithNetwork parts = MIGRATE_TRY(make_cell_with_network(options));
  auto cell = std::make_unique<Cell>(std::move(parts.cell));
  NewCell made;
  made.gateway = std::move(parts.gateway);
  made.init = cell->init();
  made.userfault = cell->take_userfault();
  made.make_restorer = [&borrowed = *cell](bool trusted) -> Result<std::unique_ptr<SeedRestorer>> {
    return std::make_unique<Restorer>(MIGRATE_TRY(Restorer::create(borrowed, trusted)));
  };
  made.control = std::move(cell);
  return made;
}

Result<std::unique_ptr<Channel>> connect_to_home(const WorkerContext& context,
                                                 const wire::CellSession& noted, int timeout_ms) {
  const Address home = MIGRATE_TRY(Address::parse(noted.home()));
  const Preamble preamble{.purpose = Purpose::kHome, .session = process_of(noted)};
  auto peer = MIGRATE_TRY(context.trust.connect(home, preamble, timeout_ms));
  MIGRATE_TRY(give_proof(*peer.channel, noted.token(), preamble, timeout_ms));
  return std::move(peer.channel);
}

std::unique_ptr<Departure> attempt_source_move(SourceMoveOptions options, SourceMove::Hooks hooks,
                                               double seconds, EventSink& sink) {
  const pid_t process = options.pid;
  const std::string command = options.command;
  auto move = std::make_unique<SourceMove>(std::move(options), std::move(hooks), sink);
  const MoveOutcome outcome = move->attempt_for(seconds);
  if (outcome == MoveOutcome::kRefused || outcome == MoveOutcome::kFailed) {
    tell_not_moved(sink, *move, outcome, process, command);
    return nullptr;
  }
  return move;
}

Result<std::unique_ptr<Departure>> adopt_source_move(SourceMoveOptions options,
                                                     SourceMove::Hooks hooks, std::uint64_t area,
                                                     const wire::Outgoing& noted, EventSink& sink) {
  SessionId session{};
  std::copy_n(reinterpret_cast<const std::byte*>(noted.session().data()),
              std::min(noted.session().size(), session.size()), session.begin());
  wire::Image image;
  ParkedProcess parked = MIGRATE_TRY(ParkedProcess::adopt(options.pid, area, session, image));
  options.context->stops.reach("source.adopting");
  return SourceMove::adopt(std::move(options), std::move(hooks), sink, std::move(parked),
                           std::move(image), noted);
}

}  // namespace

GuestWorld::GuestWorld()
    : make_cell(make_new_cell),
      connect_home(connect_to_home),
      attempt_move(attempt_source_move),
      adopt_move(adopt_source_move),
      clock(now_us) {}

}  // namespace migrate
