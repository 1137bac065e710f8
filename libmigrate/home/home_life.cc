#include "libmigrate/home/home_life.h"

#include <signal.h>

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "base/process_identity.h"
#include "libmigrate/home/home_children_left.h"
#include "libmigrate/home/home_ended.h"
#include "libmigrate/home/home_in_doubt.h"
#include "libmigrate/home/home_killed.h"
#include "libmigrate/home/home_serving.h"
#include "libmigrate/host/worker_over.h"

namespace migrate {

void HomeLife::move_away(HomeLeaving& leaving) {
  record_.enter(HomePhase::kOffered);
  const MoveOutcome outcome = leaving.attempt();
  if (outcome == MoveOutcome::kRefused || outcome == MoveOutcome::kFailed) {
    end_not_moved(leaving, outcome);
    return;
  }
  Departed departed = leaving.depart();
  std::unique_ptr<Channel> caller;
  DoubtEnd doubt = DoubtEnd::kThere;
  if (outcome == MoveOutcome::kInDoubt) {
    doubt = settle_doubt(departed, caller);
  }
  if (doubt == DoubtEnd::kHere) {
    end_not_moved(leaving, MoveOutcome::kFailed);
    return;
  }
  Deputy deputy(around_, record_, asking_, std::move(departed), std::move(files_),
                std::move(caller), false);
  if (auto settled = deputy.settle(); !settled) {
    log::error("deputy of process {}: {}", record_.pid(), settled.error().message());
  }
  if (doubt == DoubtEnd::kGivenUp) {
    deputy.note_end(given_up_end());
  }
  serve_until_end(deputy);
}

DoubtEnd HomeLife::settle_doubt(Departed& departed, std::unique_ptr<Channel>& caller) {
  HomeInDoubt in_doubt(around_, record_, departed, asking_.client);
  run_(in_doubt);
  const DoubtEnd end = in_doubt.settle();
  caller = in_doubt.take_caller();
  return end;
}

// The process is nobody's any more: who asked for it meanwhile may try again.
void HomeLife::end_not_moved(HomeLeaving& leaving, MoveOutcome outcome) {
  record_.enter(HomePhase::kStayed);
  record_.remove_row();
  WorkerOver over(MIGRATE_FAILED, make_error(ErrorCode::kRetry, "carry out a request",
                                             "process " + record_.command(),
                                             "a move of it has just failed; try again"));
  run_(over);
  record_.remove();
  leaving.tell_not_moved(asking_.client, outcome);
}

void HomeLife::serve_until_end(Deputy& deputy) {
  HomeServing serving(deputy);
  run_(serving);
  serve_what_is_left(deputy);
}

void HomeLife::serve_what_is_left(Deputy& deputy) {
  if (deputy.end_deputy()) {
    HomeChildrenLeft children_left(deputy);
    run_(children_left);
  }
  HomeEnded ended(deputy);
  run_(ended);
  deputy.end_forwards();
  record_.remove();
  WorkerOver over(MIGRATE_ERROR, ended_error(record_.command()));
  run_(over);
}

Result<void> HomeLife::take_over(HomeRemains& remains) {
  const Found found = MIGRATE_TRY(remains.find());
  switch (taken_over_as(record_.phase(), record_.text(), found)) {
    case TakenOverAs::kEnded: {
      record_.enter(HomePhase::kEnded);
      record_.remove();
      WorkerOver over(MIGRATE_ERROR, ended_error(record_.command()));
      run_(over);
      return {};
    }
    case TakenOverAs::kStayed:
      end_stayed();
      return {};
    case TakenOverAs::kAskAbout:
      end_killed(remains);
      return {};
    case TakenOverAs::kKilled:
      return take_over_killed(remains);
    case TakenOverAs::kDeputy:
      return take_over_deputy(remains);
    case TakenOverAs::kKeeper:
      return take_over_keeper(remains);
  }
  return {};
}

// One that was to begin elsewhere does not begin here: it is stopped, or was just let go to be.
void HomeLife::end_stayed() {
  const bool starts = record_.text().starts();
  log::info("process {} {}: its move was not decided", record_.command(),
            starts ? "ends, as it is to run elsewhere or nowhere" : "runs on here");
  if (const auto process = record_.identity().open(); starts && process) {
    send_signal(process->get(), SIGKILL);
  }
  record_.enter(HomePhase::kStayed);
  record_.remove();
  WorkerOver over(
      MIGRATE_FAILED,
      make_error(ErrorCode::kRetry, "carry out a request", "process " + record_.command(),
                 starts ? "it has ended" : "it runs on here; try again"));
  run_(over);
}

void HomeLife::end_killed(HomeRemains& remains) {
  SessionId session{};
  const std::string& bytes = record_.text().outgoing().session();
  std::copy_n(reinterpret_cast<const std::byte*>(bytes.data()),
              std::min(bytes.size(), session.size()), session.begin());
  HomeKilled killed(around_, record_, {record_.text().outgoing().destination(), to_hex(session)},
                    [&remains] { return remains.ask_verdict(); });
  run_(killed);
  const auto& verdict = killed.verdict();
  const bool ended_there = verdict && verdict->fate() == wire::Verdict::ENDED;
  log::info("process {} was killed while its move was under way{}", record_.command(),
            verdict ? "" : "; an operator gave it up at the destination");
  record_.enter(HomePhase::kEnded, {}, ended_there ? verdict->wait_status() : SIGKILL);
  record_.remove();
  WorkerOver over(MIGRATE_ERROR, ended_error(record_.command()));
  run_(over);
}

Result<void> HomeLife::take_over_killed(HomeRemains& remains) {
  files_.note_streams(record_.text().relay());
  Deputy deputy(around_, record_, asking_, MIGRATE_TRY(remains.go_on()), std::move(files_), nullptr,
                true);
  log::info("took over process {}", record_.command());
  MIGRATE_TRY(deputy.settle());
  serve_until_end(deputy);
  return {};
}

Result<void> HomeLife::take_over_deputy(HomeRemains& remains) {
  record_.text().clear_keeper();  // A new one is made.
  around_.stops.reach("source.adopting");
  Departed departed = MIGRATE_TRY(remains.go_on());
  departed.deputy->fetch_streams(files_, *record_.text().mutable_relay());
  std::unique_ptr<Channel> caller;
  DoubtEnd doubt = DoubtEnd::kThere;
  if (departed.move->fate() == Fate::kUnknown) {
    doubt = settle_doubt(departed, caller);
  }
  if (doubt == DoubtEnd::kHere) {
    end_stayed();
    return {};
  }
  log::info("took over process {}", record_.command());
  Deputy deputy(around_, record_, asking_, std::move(departed), std::move(files_),
                std::move(caller), true);
  MIGRATE_TRY(deputy.settle());
  if (doubt == DoubtEnd::kGivenUp) {
    deputy.note_end(given_up_end());
  }
  serve_until_end(deputy);
  return {};
}

Result<void> HomeLife::take_over_keeper(HomeRemains& remains) {
  record_.release_pid();
  const bool lives = MIGRATE_TRY(remains.find_keeper());
  around_.stops.reach("source.adopting");
  Departed departed = MIGRATE_TRY(remains.go_on());
  if (lives) {
    departed.keeper->fetch_streams(files_, *record_.text().mutable_relay());
  } else {  // It was killed while no worker looked.
    files_.note_streams(record_.text().relay());
  }
  log::info("took over process {}", record_.command());
  Deputy deputy(around_, record_, asking_, std::move(departed), std::move(files_), nullptr, true);
  ProcessEnd end;
  end.wait_status = record_.text().keeper().wait_status();
  end.lost = record_.text().relay().exited().lost();
  end.left_children = true;
  deputy.note_end(std::move(end));
  serve_what_is_left(deputy);
  return {};
}

}  // namespace migrate
