#include "libmigrate/move/not_moved.h"

#include <string>

#include "libmigrate/host/refusals_json.h"
#include "libmigrate/trace/tracee.h"

namespace migrate {

void tell_refused(EventSink& sink, const std::vector<wire::Refusal>& refusals, pid_t pid,
                  const std::vector<Loss>& losses) {
  sink.send({{"event", "refused"}, {"refusals", to_json(refusals)}});
  sink.finish(MIGRATE_REFUSED,
              {{"refusals", to_json(refusals)}, {"pid", pid}, {"losses", to_json(losses)}});
}

void tell_cancelled(EventSink& sink, const std::string& process) {
  sink.finish_failed(MIGRATE_FAILED,
                     make_error(ErrorCode::kCancelled, "move", "process " + process));
}

void tell_not_moved(EventSink& sink, const SourceMove& move, MoveOutcome outcome, pid_t pid,
                    const std::string& command) {
  if (outcome == MoveOutcome::kFailed && is_ending(pid)) {
    sink.finish_failed(MIGRATE_ERROR,
                       make_error(ErrorCode::kNotFound, "move", "process " + command,
                                  "it ended meanwhile (" + move.error().message() + ")"));
  } else if (outcome == MoveOutcome::kFailed) {
    sink.finish_failed(MIGRATE_FAILED, move.error());
  } else {
    tell_refused(sink, move.refusals(), pid, move.losses().value_or(std::vector<Loss>()));
  }
}

}  // namespace migrate
