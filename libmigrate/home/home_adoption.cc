// How a new worker takes over a process at its home from one that died.
#include <poll.h>
#include <signal.h>

#include <algorithm>
#include <utility>

#include "base/clock.h"
#include "base/log.h"
#include "libmigrate/home/home_worker.h"
#include "libmigrate/requests/json_member.h"
#include "libmigrate/state/verdict.h"

namespace migrate {

void HomeWorker::run_adopted(SessionFile file, const SessionId& process) {
  file_.emplace(std::move(file));
  process_ = process;
  const auto adopted = adopt();
  if (!adopted && adopted.error().code == ErrorCode::kCorrupt) {
    file_->set_aside();
    return;
  }
  if (!adopted) {
    log::error("process {} could not be taken over: {}", to_hex(process_),
               adopted.error().message());
    return;
  }
  if (*adopted) {
    serve_until_end();
  }
}

// False: nothing is left to do.
Result<bool> HomeWorker::adopt() {
  MIGRATE_TRY(file_->await_worker_gone());
  file_->take();
  row_.emplace(MIGRATE_TRY(
      ProcessRow::open(context_.state_directory, to_hex(process_), ProcessRole::kHome)));
  if (!noted_.ParseFromString(MIGRATE_TRY(file_->load()))) {
    return fail(make_error(ErrorCode::kCorrupt, "read the session of a process"));
  }
  request_.pid = noted_.pid();
  request_.uid = noted_.user();
  if (auto lock = PidLock::take(context_.state_directory, request_.pid)) {
    pid_lock_ = std::move(*lock);
  }
  request_.destination = noted_.outgoing().destination();
  request_.plan = noted_plan(noted_.outgoing().mode());
  token_ = noted_.token();
  command_ = noted_.command();
  where_.host = noted_.where();
  where_.session = noted_.where_session();
  mailbox_.emplace(MIGRATE_TRY(Mailbox::create(context_.state_directory, to_hex(process_))));
  MIGRATE_TRY(open_mailbox());
  take_children();
  const Adopted adopted = MIGRATE_TRY(adopt_deputy());
  if (adopted == Adopted::kOver) {
    file_->remove();
    return false;
  }
  if (adopted == Adopted::kRunsHere) {
    log::info("process {} runs on here: its move was not decided", command_);
    enter(HomePhase::kStayed);
    file_->remove();
    return false;
  }
  log::info("took over process {}", command_);
  MIGRATE_TRY(become_deputy());
  return true;
}

Result<HomeWorker::Adopted> HomeWorker::adopt_deputy() {
  SessionId session{};
  const std::string& bytes = noted_.outgoing().session();
  std::copy_n(reinterpret_cast<const std::byte*>(bytes.data()),
              std::min(bytes.size(), session.size()), session.begin());
  wire::Image image;
  auto parked = ParkedProcess::adopt(request_.pid, file_->mark().area, session, image);
  const std::uint64_t start = start_time(request_.pid);
  const std::uint64_t noted_start = file_->mark().process_start;
  const bool gone = start == 0 || (noted_start != 0 && start != noted_start);
  if (!parked && !gone && parked.error().code != ErrorCode::kNotFound) {
    return fail(parked.error());
  }
  if (!parked && gone && noted_.has_keeper()) {
    return adopt_keeper(session);
  }
  if (parked && noted_.has_keeper()) {
    noted_.clear_keeper();  // A new one is made.
  }
  if (parked) {
    ParkedProcess::end_children(request_.pid);
  }
  if (verdict(phase(), false, parked.has_value() || !gone) == SessionVerdict::kEnded) {
    enter(HomePhase::kEnded);
    return Adopted::kOver;
  }
  const bool never_left = !noted_.has_outgoing();  // However it went on, it did so here.
  if (!parked && (never_left || (!gone && !noted_.outgoing().confirmed()))) {
    return Adopted::kRunsHere;
  }
  const Address destination = MIGRATE_TRY(Address::parse(noted_.outgoing().destination()));
  SourceMoveOptions options = move_options(destination);
  if (!parked) {
    // Killed while no worker looked: so shall be the process, wherever it is.
    deputy_gone_ = true;
    files_.note_streams(noted_.relay());
    // Without a note of its streams, its place could not resume the link.
    if (noted_.outgoing().confirmed() && noted_.has_relay()) {
      move_ = SourceMove::adopt(std::move(options), hooks(), sink_, std::nullopt, {},
                                noted_.outgoing());
      return Adopted::kAway;
    }
    move_ = std::make_unique<SourceMove>(std::move(options), hooks(), sink_);
    return adopt_killed(session);
  }
  context_.stops.reach("source.adopting");
  move_ = SourceMove::adopt(std::move(options), hooks(), sink_, std::move(*parked),
                            std::move(image), noted_.outgoing());
  if (move_->fate() == Fate::kUnknown && !settle_doubt()) {
    return Adopted::kRunsHere;
  }
  files_.fetch_streams_left(move_->parked().process(), move_->image());
  reported_done_ = move_->done();
  return Adopted::kAway;
}

// It has ended, and children of it have not.
Result<HomeWorker::Adopted> HomeWorker::adopt_keeper(const SessionId& session) {
  const wire::Keeper& noted = noted_.keeper();
  pid_lock_.reset();
  deputy_gone_ = true;
  children_ = true;
  exit_status_ = noted.wait_status();
  lost_ = noted_.relay().exited().lost();
  wire::Image image;
  auto keeper = start_time(noted.pid()) == noted.start()
                    ? ParkedProcess::adopt_keeper(noted.pid(), file_->mark().area, session, image)
                    : Result<ParkedProcess>(fail(make_error(ErrorCode::kNotFound, "find")));
  if (!keeper && keeper.error().code != ErrorCode::kNotFound) {
    return fail(keeper.error());
  }
  context_.stops.reach("source.adopting");
  SourceMoveOptions options =
      move_options(MIGRATE_TRY(Address::parse(noted_.outgoing().destination())));
  keeper_lives_ = keeper.has_value();
  move_ = SourceMove::adopt(std::move(options), hooks(), sink_,
                            keeper ? std::optional(std::move(*keeper)) : std::nullopt,
                            std::move(image), noted_.outgoing());
  if (keeper_lives_) {
    files_.fetch_streams_left(move_->parked().process(), move_->image());
  } else {  // Killed while no worker looked.
    files_.note_streams(noted_.relay());
  }
  reported_done_ = move_->done();
  return Adopted::kAway;
}

// Killed here while it was in doubt where it runs: if it runs there, it is ended there.
HomeWorker::Adopted HomeWorker::adopt_killed(const SessionId& session) {
  const auto verdict = ask_about_killed(session);
  const bool ended_there = verdict && verdict->fate() == wire::Verdict::ENDED;
  const int status = ended_there ? verdict->wait_status() : SIGKILL;
  log::info("process {} was killed while its move was under way{}", command_,
            verdict ? "" : "; an operator gave it up at the destination");
  enter(HomePhase::kEnded, status);
  return Adopted::kOver;
}

// What became of it at the destination, where it does not run any more then.
Result<wire::Verdict> HomeWorker::end_there(const SessionId& session) {
  constexpr int kAnswerMs = 5000;
  wire::Verdict verdict = MIGRATE_TRY(move_->ask_verdict(session, noted_.outgoing().incarnation()));
  if (verdict.fate() == wire::Verdict::RUNS) {
    // Not by the relay: of its streams nothing is known here.
    const auto channel =
        MIGRATE_TRY(send_request({move_->destination(), to_hex(session)}, {{"command", "end"}}));
    const auto answer = MIGRATE_TRY(channel->receive(0, kAnswerMs));
    const nlohmann::json result =
        parse_object({reinterpret_cast<const char*>(answer.data()), answer.size()});
    if (integer_member(result, "exit", MIGRATE_ERROR) == MIGRATE_FAILED) {
      // It is just leaving there.
      return fail(make_error(ErrorCode::kRetry, "end a process", move_->destination(),
                             "its worker cannot do so now"));
    }
  }
  return verdict;
}

// Nothing: an operator does not want to wait for an answer.
std::optional<wire::Verdict> HomeWorker::ask_about_killed(const SessionId& session) {
  constexpr int kPauseMs = 1000;
  const std::int64_t since_us = now_us();
  for (;;) {
    auto verdict = end_there(session);
    if (verdict) {
      return std::move(*verdict);
    }
    row_->set_waiting("killed here, and in doubt whether it runs at " + move_->destination(),
                      now_us() - since_us);
    row_->refresh();
    pollfd polled{mailbox_->fd(), POLLIN, 0};
    ::poll(&polled, 1, kPauseMs);
    read_mailbox();
    Decision decision = std::exchange(decision_, Decision());
    if (decision.resolution == Resolution::kGiveUp) {
      decision.client.finish(MIGRATE_DONE,
                             {{"process", to_hex(process_)}, {"resolved", "give-up"}});
      return std::nullopt;
    }
    if (decision.made()) {
      decision.client.finish_failed(
          MIGRATE_REFUSED,
          make_error(ErrorCode::kRefused, "resume", "process " + command_,
                     "it was killed here; give it up, or wait for " + move_->destination()));
    }
  }
}

void run_adopted_home(const WorkerContext& context, SessionFile file, const SessionId& process) {
  HomeWorker(context, UniqueFd(), {}).run_adopted(std::move(file), process);
}

}  // namespace migrate
