#include "libmigrate/guest/guest_world.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "base/clock.h"
#include "libmigrate/guest/guest_record.h"
#include "libmigrate/move/not_moved.h"
#include "libmigrate/park/parked_process.h"
#include "libmigrate/restore/restorer.h"
#include "transport/proof.h"

namespace migrate {
namespace {

Result<NewCell> make_new_cell(const CellOptions& options) {
  auto cell = std::make_unique<Cell>(MIGRATE_TRY(Cell::create(options)));
  NewCell made;
  if (options.network) {
    auto gateway = Gateway::create(cell->init(), *options.network);
    if (!gateway) {
      cell->end_and_wait();
      return fail(std::move(gateway).error());
    }
    made.gateway = std::move(*gateway);
  }
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
