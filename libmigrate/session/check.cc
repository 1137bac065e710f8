#include <nlohmann/json.hpp>

#include "libmigrate/session/event_sink.h"
#include "libmigrate/session/source_move.h"
#include "libmigrate/session/worker.h"

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
  options.mode = kCheckMode;
  options.home = context.own_address;
  options.user = request.uid;
  options.host_clocks = MIGRATE_TRY(clock_offsets(0));
  options.context = &context;
  EventSink nobody;
  return SourceMove(std::move(options), {}, nobody).check();
}

}  // namespace

void run_check(const WorkerContext& context, UniqueFd client, const CheckRequest& request) {
  EventSink sink(std::move(client));
  const auto refusals = verdict(context, request);
  if (!refusals) {
    sink.finish_failed(kExitOther, refusals.error());
    return;
  }
  sink.finish(refusals->empty() ? kExitDone : kExitRefused,
              {{"movable", refusals->empty()}, {"refusals", to_json(*refusals)}});
}

}  // namespace migrate
