// What a guest worker does with the requests of clients here and of the process's home.
#include <signal.h>

#include "libmigrate/guest/guest_worker.h"
#include "libmigrate/move/check.h"
#include "libmigrate/requests/json_member.h"
#include "libmigrate/requests/requests.h"

namespace migrate {

// `home`: who passes the request on; null if it is of a client on this host.
void GuestWorker::take_request(const std::string& text, EventSink sink, const PeerIdentity* home) {
  const nlohmann::json request = parse_object(text);
  const auto command = parse_command(request);
  if (!command) {
    sink.finish_failed(MIGRATE_USAGE, command.error());
    return;
  }
  if (*command == Command::kEnd && home != nullptr) {
    end_for_home(std::move(sink));
    return;
  }
  auto asker = believed(request, home);
  if (!asker) {
    sink.finish_failed(MIGRATE_REFUSED, asker.error());
    return;
  }
  if (*command == Command::kResolve) {
    sink.finish_failed(MIGRATE_ERROR,
                       make_error(ErrorCode::kRefused, "resolve", "process " + noted_.command(),
                                  "it runs here and nothing about it is in doubt"));
    return;
  }
  if (exited_) {
    sink.finish_failed(MIGRATE_ERROR, ended_error());
    return;
  }
  if (*command == Command::kMove) {
    take_move(request, std::move(*asker), std::move(sink));
  } else if (*command == Command::kCheck) {
    check(request, std::move(*asker), std::move(sink));
  } else {
    sink.finish_failed(MIGRATE_REFUSED,
                       make_error(ErrorCode::kRefused, "end", "process " + noted_.command(),
                                  "only its home asks for that; kill it"));
  }
}

void GuestWorker::take_move(const nlohmann::json& request, Asker asker, EventSink sink) {
  auto move = parse_move(request, context_.push_bytes_per_second);
  if (!move) {
    sink.finish_failed(MIGRATE_USAGE, move.error());
    return;
  }
  move->pid = cell_->seed();
  move->uid = noted_.user();
  move->asker = std::move(asker);
  if (!independent() && control_) {
    wire::ControlMessage message;
    message.mutable_send_all();
    static_cast<void>(control_->send(message));
  }
  pending_moves_.push_back({std::move(*move), std::move(sink)});
}

// It was killed at its home while that did not know where it runs.
void GuestWorker::end_for_home(EventSink sink) {
  if (const auto may = may_signal_now(); !may) {
    sink.finish_failed(MIGRATE_REFUSED, may.error());
    return;
  }
  report_end(SIGKILL, "it was killed at its home");
  cell_->end();
  sink.finish(MIGRATE_DONE, nlohmann::json::object());
}

void GuestWorker::check(const nlohmann::json& request, Asker asker, EventSink sink) {
  const auto parsed = parse_check(request);
  if (!parsed) {
    sink.finish_failed(MIGRATE_USAGE, parsed.error());
    return;
  }
  SourceMoveOptions options = onward_options(check_plan());
  options.asker = std::move(asker);
  options.destination.host.clear();
  if (!parsed->destination.empty()) {
    options.destination = *Address::parse(parsed->destination);
  }
  EventSink nobody;
  tell_verdict(sink, SourceMove(std::move(options), {}, nobody).check());
}

}  // namespace migrate
