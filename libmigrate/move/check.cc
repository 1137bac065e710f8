#include "libmigrate/move/check.h"

#include <nlohmann/json.hpp>

#include "libmigrate/host/event_sink.h"
#include "libmigrate/host/worker_context.h"
#include "libmigrate/move/source_move.h"
#include "libmigrate/requests/requests.h"

namespace migrate {
namespace {

Result<std::vector<wire::Refusal>> verdict(const WorkerContext& context,
                                           const CheckRequest& request) {
  SourceMoveOptions options;
  options.pid = request.pid;
  options.destination.host.clear();
  if (!request.destination.empty()) {
    options.destination = MIGRATE_TRY(Address::parse(request.destination));
  }
  options.plan = check_plan();
  options.home = context.own_address;
  options.asker = request.asker;
  options.host_clocks = MIGRATE_TRY(clock_offsets(0));
  options.context = &context;
  EventSink nobody;
  return SourceMove(std::move(options), {}, nobody).check();
}

}  // namespace

void tell_verdict(EventSink& client, const Result<std::vector<wire::Refusal>>& refusals) {
  if (!refusals) {
    client.finish_failed(MIGRATE_ERROR, refusals.error());
    return;
  }
  client.finish(refusals->empty() ? MIGRATE_DONE : MIGRATE_REFUSED,
                {{"movable", refusals->empty()}, {"refusals", to_json(*refusals)}});
}

void run_check(const WorkerContext& context, UniqueFd client, const CheckRequest& request) {
  EventSink sink(std::move(client));
  tell_verdict(sink, verdict(context, request));
}

}  // namespace migrate
