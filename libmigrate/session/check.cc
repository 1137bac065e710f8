#include <nlohmann/json.hpp>

#include "libmigrate/inspect/process_inspector.h"
#include "libmigrate/session/event_sink.h"
#include "libmigrate/session/source_move.h"
#include "libmigrate/session/worker.h"

namespace migrate {
namespace {

Result<std::vector<wire::Refusal>> verdict(const CheckRequest& request) {
  auto inspector = MIGRATE_TRY(ProcessInspector::create(request.pid, {}));
  return MIGRATE_TRY(inspector.inspect_running()).refusals;
}

}  // namespace

void run_check(const WorkerContext&, UniqueFd client, const CheckRequest& request) {
  EventSink sink(std::move(client));
  const auto refusals = verdict(request);
  if (!refusals) {
    sink.finish_failed(kExitOther, refusals.error());
    return;
  }
  sink.finish(refusals->empty() ? kExitDone : kExitRefused,
              {{"movable", refusals->empty()}, {"refusals", to_json(*refusals)}});
}

}  // namespace migrate
