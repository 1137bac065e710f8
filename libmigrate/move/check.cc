#include "libmigrate/move/check.h"

#include <nlohmann/json.hpp>

#include "libmigrate/host/event_sink.h"
#include "libmigrate/host/refusals_json.h"
#include "libmigrate/host/worker_context.h"
#include "libmigrate/requests/requests.h"

namespace migrate {
namespace {

Result<SourceMoveOptions> options_of(const WorkerContext& context, const CheckRequest& request) {
  SourceMoveOptions options;
  options.pid = request.pid;
  options.destination.host.clear();
  if (!request.destination.empty()) {
    options.destination = MIGRATE_TRY(Address::parse(request.destination));
  }
  options.plan = check_plan(request.plan.rounds);
  options.home = context.own_address;
  options.asker = request.asker;
  options.strict = request.strict;
  options.host_clocks = MIGRATE_TRY(clock_offsets(0));
  options.context = &context;
  return options;
}

}  // namespace

void tell_verdict(EventSink& client, SourceMove& move) {
  const auto refusals = move.check();
  if (!refusals) {
    client.finish_failed(MIGRATE_ERROR, refusals.error());
    return;
  }
  nlohmann::json result = {{"pid", move.pid()},
                           {"movable", refusals->empty()},
                           {"refusals", to_json(*refusals)},
                           {"losses", to_json(move.losses().value_or(std::vector<Loss>()))}};
  if (move.has_hooks()) {
    result["hooks"] = true;
  }
  if (const std::vector<Loss> notes = move.notes(); !notes.empty()) {
    result["notes"] = to_json(notes);
  }
  client.finish(refusals->empty() ? MIGRATE_DONE : MIGRATE_REFUSED, std::move(result));
}

void run_check(const WorkerContext& context, EventSink client, const CheckRequest& request) {
  auto options = options_of(context, request);
  if (!options) {
    client.finish_failed(MIGRATE_ERROR, options.error());
    return;
  }
  EventSink nobody;
  SourceMove move(std::move(*options), {}, nobody);
  tell_verdict(client, move);
}

}  // namespace migrate
