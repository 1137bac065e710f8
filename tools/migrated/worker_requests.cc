#include "tools/migrated/worker_requests.h"

#include <chrono>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include "base/log.h"
#include "libmigrate/host/letter_request.h"
#include "libmigrate/host/mailbox_path.h"
#include "libmigrate/move/not_moved.h"
#include "libmigrate/move/point_wait.h"
#include "libmigrate/move/this_host.h"
#include "libmigrate/requests/json_member.h"
#include "libmigrate/requests/request_json.h"
#include "libmigrate/rights/stand_in.h"
#include "libmigrate/state/registry.h"
#include "tools/migrated/asked_process.h"
#include "tools/migrated/find_process.h"
#include "transport/handoff.h"

namespace migrate {
namespace {

using nlohmann::json;

constexpr std::chrono::milliseconds kReplacedWithin{
    2000};  // A dead worker is replaced in one second.
constexpr std::chrono::milliseconds kReplacedPause{20};

/// Hands what is wanted to the worker that looks after the process. False: it takes nothing.
Result<bool> hand_to_keeper(const LocalService& service, const Request& request,
                            const WorkerRequest& wanted, const EventSink& client,
                            const ProcessRecord& keeper) {
  json body = request_for(wanted);
  name_process(body, {.id = keeper.process, .pid = keeper.pid});
  Asker asker = request.asker;
  asker.is_target = keeper.state == ProcessState::kRunningHere && request.is_of_client(keeper.pid);
  body["asker"] = to_json(asker);
  mark_answer(body, client.is_program() ? request.token : 0);
  const std::string message = json_text(body);
  return hand_to_worker(service.context.state_directory, keeper.mailbox_name(), client.descriptor(),
                        std::as_bytes(std::span(message)));
}

/// The same; a worker that ends is waited out until another one looks after the process, or none.
/// False: nobody does.
Result<bool> hand_over(const LocalService& service, const Request& request,
                       const WorkerRequest& wanted, const EventSink& client) {
  const auto deadline = std::chrono::steady_clock::now() + kReplacedWithin;
  for (;;) {
    Registry registry = MIGRATE_TRY(Registry::open(service.context.state_directory));
    const std::optional<ProcessRecord> keeper = MIGRATE_TRY(find_keeper(registry, request));
    if (!keeper) {
      return false;
    }
    if (MIGRATE_TRY(hand_to_keeper(service, request, wanted, client, *keeper))) {
      return true;
    }
    if (!keeper->has_worker() || std::chrono::steady_clock::now() > deadline) {
      return fail(make_error(
          ErrorCode::kPeerLost, "reach the process's worker",
          "worker " + std::to_string(keeper->worker) + " of process " + keeper->process,
          keeper->has_worker() ? "it is busy; try again"
                               : "it has ended; the log of migrated says why. The process was left "
                                 "as it was"));
    }
    std::this_thread::sleep_for(kReplacedPause);
  }
}

/// Tells the client of a check or move that it is refused before anybody has looked.
Result<void> refuse(const Request& request, EventSink& client, std::string_view code,
                    const Error& error) {
  log::warn("refused user {} (pid {}): {}", request.asker.user, request.client.pid(),
            error.message());
  client.finish_refused(code, error);
  return {};
}

/// Waits until the program is at one of its points, in the place of its user's that the daemon has
/// for a client: nobody makes more of these than he may have connections. False: it did not come
/// there, which the client was told, or has left before. Errors: as PointWait::begin.
Result<bool> wait_for_point(MoveRequest& move, EventSink& client) {
  auto begun = PointWait::begin(move.pid, move.asker, *move.point_wait);
  if (!begun && begun.error().code == ErrorCode::kNotFound) {
    tell_refused(client, {refusal_without_points(move.pid)}, move.pid);
    return false;
  }
  PointWait point = MIGRATE_TRY(std::move(begun));
  PointWait::State state = point.look();
  for (; state == PointWait::State::kWaiting; state = point.look()) {
    if (client.has_left()) {
      return false;
    }
    if (client.cancel_asked()) {
      tell_cancelled(client, std::to_string(move.pid));
      return false;
    }
    std::this_thread::sleep_for(kPointPause);
  }
  if (state != PointWait::State::kThere) {
    tell_refused(client, {refusal_of_point(point, state, move.pid)}, move.pid);
    return false;
  }
  move.at_point = point.request();
  client.also_tell(point.take_program(), move.at_point);
  return true;
}

/// Moves a process that nobody looks after yet, as its worker.
Result<void> move_from_home(const LocalService& service, MoveRequest& move, EventSink& client) {
  log::info("user {} moves process {} to {} ({})", move.asker.user, move.pid, move.destination,
            move.plan.word);
  if (move.asked == 0) {
    move.point_wait = longest_wait(move.pid, move.point_wait, move.hook_wait.value_or(kHookWait));
  }
  if (move.point_wait && !MIGRATE_TRY(wait_for_point(move, client))) {
    return {};
  }
  service.become_worker(client.descriptors());  // Closes all others.
  run_source_worker(service.context, std::move(client), move);
  return {};
}

/// A function for each kind of request. What needs nothing before it is handed over, or fails where
/// there is no worker, is the last one's.
struct PassedOn {
  const LocalService& service;
  Request& request;
  EventSink& client;

  Result<void> operator()(MoveRequest move) const {
    if (!MIGRATE_TRY(is_new(move))) {
      return {};
    }
    MIGRATE_TRY(prepare(request, move));
    // Whoever has started it sees its end, and lets it run now.
    if (MIGRATE_TRY(is_this_host(service.context, move.destination)) &&
        (move.starts || move.wait != MoveWait::kExit)) {
      client.finish(MIGRATE_DONE, already_there(move.pid, move.destination));
      return {};
    }
    return move_from_home(service, move, client);
  }

  Result<void> operator()(CheckRequest check) const {
    if (!MIGRATE_TRY(is_new(check))) {
      return {};
    }
    MIGRATE_TRY(prepare(request, check));
    if (!check.destination.empty()) {
      MIGRATE_TRY(is_this_host(service.context, check.destination));
    }
    run_check(service.context, std::move(client), check);
    return {};
  }

  Result<void> operator()(const EndRequest& /*end*/) const {
    return fail(usage_error("serve the request", "command \"end\"",
                            "only the home of a process asks for that; kill the process"));
  }

  template <class Asked>
  Result<void> operator()(const Asked& asked) const {
    return MIGRATE_TRY(hand_over(service, request, asked, client))
               ? Result<void>()
               : Result<void>(fail(unknown_process(request)));
  }

 private:
  /// Whether the process has no worker, and may have one. Else its worker has the request now, or
  /// the client was told.
  template <class Asked>
  Result<bool> is_new(const Asked& asked) const {
    const char* const word = Asked::kWord.data();
    if (!request.process.given()) {
      return fail(usage_error(word, "no process", "give a pid or an id"));
    }
    if (MIGRATE_TRY(hand_over(service, request, asked, client))) {
      return false;
    }
    if (is_ours(request.pid())) {
      MIGRATE_TRY(refuse(
          request, client, "SELF",
          make_error(ErrorCode::kRefused, word, "process " + std::to_string(request.pid()))));
      return false;
    }
    return true;
  }
};

}  // namespace

Result<void> carry_out(const LocalService& service, Request& request, const WorkerRequest& wanted,
                       EventSink& client) {
  auto done = std::visit(PassedOn{service, request, client}, wanted);
  const bool is_looked_at =
      std::holds_alternative<MoveRequest>(wanted) || std::holds_alternative<CheckRequest>(wanted);
  return is_looked_at && !done && done.error().code == ErrorCode::kRefused && client.open()
             ? refuse(request, client, "NOT_PERMITTED", done.error())
             : done;
}

}  // namespace migrate
