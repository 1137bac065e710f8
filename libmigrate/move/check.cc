#include "libmigrate/move/check.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "libmigrate/host/event_sink.h"
#include "libmigrate/host/worker_context.h"
#include "libmigrate/move/source_move.h"
#include "libmigrate/requests/json_member.h"
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
  options.mode = kCheckMode;
  options.home = context.own_address;
  options.asker = request.asker;
  options.host_clocks = MIGRATE_TRY(clock_offsets(0));
  options.context = &context;
  EventSink nobody;
  return SourceMove(std::move(options), {}, nobody).check();
}

}  // namespace

PushLimits push_limits(const nlohmann::json& request, const WorkerContext& context) {
  constexpr double kMillisecondsPerSecond = 1000;
  constexpr double kMost = 1e15;  // what an integer holds, and nobody reaches
  const auto member = [&](const char* name, double otherwise) {
    return std::clamp(number_member(request, name, otherwise), 0.0, kMost);
  };
  PushLimits limits;
  limits.bytes_per_second = static_cast<std::uint64_t>(
      member("bytes_per_second", static_cast<double>(context.push_bytes_per_second)));
  limits.deadline = std::chrono::milliseconds(
      static_cast<std::int64_t>(member("deadline_seconds", 0) * kMillisecondsPerSecond));
  return limits;
}

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
