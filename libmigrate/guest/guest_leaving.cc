// How a guest worker moves its process on, and what it does until it owes nothing any more.
#include <poll.h>

#include "base/clock.h"
#include "base/log.h"
#include "libmigrate/guest/guest_worker.h"
#include "libmigrate/move/not_moved.h"
#include "libmigrate/requests/json_member.h"

namespace migrate {
namespace {

constexpr int kStepMs = 20;

}  // namespace

SourceMove::Hooks GuestWorker::onward_hooks() {
  SourceMove::Hooks hooks;
  hooks.freeze_relay = [this](const wire::Image&) {
    wire::RelayState state = relay_->freeze_state();
    note_change();  // It took from the process what it had written.
    return state;
  };
  hooks.thaw_relay = [this] { relay_->thaw(); };
  hooks.on_outgoing = [this](const wire::Outgoing& outgoing) {
    *noted_.mutable_outgoing() = outgoing;
    return file_->save(noted_.SerializeAsString());
  };
  hooks.on_area = [this](std::uint64_t area) { file_->mark().area = area; };
  return hooks;
}

void GuestWorker::move_on() {
  PendingMove pending = std::move(pending_moves_.front());
  pending_moves_.erase(pending_moves_.begin());
  auto destination = Address::parse(pending.request.destination);
  if (!destination) {
    pending.sink.finish_failed(MIGRATE_FAILED, destination.error());
    return;
  }
  SourceMoveOptions options = onward_options(pending.request.plan);
  options.asker = pending.request.asker;
  options.destination = *destination;
  options.push = pending.request.push;
  options.transport = pending.request.transport;
  SourceMove move(std::move(options), onward_hooks(), pending.sink);
  const MoveOutcome outcome = move.attempt_for(pending.request.retry_seconds);
  if (outcome == MoveOutcome::kRefused || outcome == MoveOutcome::kFailed) {
    tell_not_moved(pending.sink, move, outcome, cell_->seed(), noted_.command());
  } else {
    finish_move(move, pending.sink, pending.request.wait);
  }
}

// After Run was sent, perhaps by a worker that has died since.
void GuestWorker::finish_move(SourceMove& move, EventSink& sink, MoveWait wait) {
  if (move.fate() == Fate::kRuns || settle_doubt(move, sink)) {
    if (give_up_) {
      end_given_up(move);
      return;
    }
    serve_until_left(move, sink, wait);
    return;
  }
  noted_.clear_outgoing();
  note_change();
  enter(GuestPhase::kIndependent);
  sink.finish_failed(MIGRATE_FAILED, move.error());
}

// True: it runs there. False: it runs here again. Until either is certain, nothing runs.
bool GuestWorker::settle_doubt(SourceMove& move, EventSink& sink) {
  const std::int64_t since_us = now_us();
  enter(GuestPhase::kInDoubt);
  while (move.fate() == Fate::kUnknown && !decision_.is_due() && !home_ended_) {
    pollfd polled[2] = {{move.control_fd(), POLLIN, 0}, {mailbox_->fd(), POLLIN, 0}};
    ::poll(polled, 2, kStepMs);
    static_cast<void>(move.handle());  // It says it again where it matters.
    read_mailbox_while_leaving(move);
    ask_home(move);
    row_->set_waiting("in doubt whether it runs at " + move.waits_for(),
                      now_us() - move.waits_since_us());
    row_->refresh();
    if (sink.open() && now_us() - since_us > kPatienceUs) {
      sink.finish_failed(MIGRATE_LOST, doubt_error(move, noted_.command()));
    }
  }
  enquiry_.reset();
  if (home_ended_) {
    refuse_decision(decision_, noted_.command(), "its home has just answered: it has ended");
    give_up_ = true;
    return true;
  }
  const DoubtEnd end = end_doubt(move, decision_, noted_.command());
  row_->set_waiting({}, 0);
  give_up_ = end == DoubtEnd::kGivenUp;
  return end != DoubtEnd::kHere;
}

// Where the process runs, its worker has called home, which therefore may know what this host does
// not.
void GuestWorker::ask_home(SourceMove& move) {
  constexpr std::int64_t kAskEveryUs = 1'000'000;
  constexpr int kConnectMs = 2000;
  if (!enquiry_ && now_us() >= next_home_us_) {
    if (connect_home(kConnectMs)) {
      enquiry_ = std::make_unique<HomeEnquiry>(std::move(home_channel_), relay_->epoch());
    }
    next_home_us_ = now_us() + kAskEveryUs;
  }
  const auto answer =
      enquiry_ ? enquiry_->answer() : Result<HomeEnquiry::Answer>(HomeEnquiry::Answer::kNone);
  if (!answer) {
    enquiry_.reset();
  } else if (*answer == HomeEnquiry::Answer::kLaterPlace) {
    log::info("process {} has called its home from a later place: it runs at {}", noted_.command(),
              move.destination());
    move.confirm_runs();
  } else if (*answer == HomeEnquiry::Answer::kEnded) {
    home_ended_ = true;
  }
}

// Over while it was in doubt whether it runs at the next place: its home hears that, and why,
// unless it has said so itself.
void GuestWorker::end_given_up(const SourceMove& move) {
  relay_->thaw();
  noted_.clear_outgoing();
  note_change();
  report_end(SIGKILL, home_ended_
                          ? "its home says that it has ended"
                          : "an operator gave it up while it was in doubt whether it ran at " +
                                move.destination());
  cell_->end();
}

// The process runs elsewhere: serves its pages until it owes nothing, then clears up all of it.
void GuestWorker::serve_until_left(SourceMove& move, EventSink& sink, MoveWait wait) {
  enter(GuestPhase::kLeaving);
  relay_.reset();
  if (auto hidden = move.hide(); !hidden) {
    log::warn("process {}: {}", noted_.command(), hidden.error().message());
  }
  if (wait == MoveWait::kResumed) {
    sink.finish(MIGRATE_DONE, move.result());
  }
  std::int64_t next_progress_us = 0;
  while (!move.done() && !give_up_) {
    pollfd polled[2] = {{move.control_fd(), POLLIN, 0}, {mailbox_->fd(), POLLIN, 0}};
    ::poll(polled, 2, kStepMs);
    read_mailbox_while_leaving(move);
    hear_source();
    if (move.handle() == Remains::kGone) {
      break;
    }
    row_->set_waiting(move.waits_for(), now_us() - move.waits_since_us());
    row_->refresh();
    give_up_ = give_up_ || waits_too_long(move);
    if (sink.open() && now_us() >= next_progress_us) {
      next_progress_us = now_us() + kProgressEveryUs;
      sink.send(move.progress_event());
    }
  }
  if (sink.open()) {
    sink.finish(MIGRATE_DONE, move.result());
  }
  await_goodbye();
  row_->remove();
}

// Where it runs, it is ended after as long without its pages.
bool GuestWorker::waits_too_long(const SourceMove& move) const {
  const std::int64_t limit_us = std::int64_t{context_.end_waiting_s} * 1'000'000;
  if (limit_us == 0 || move.waits_for().empty() || now_us() - move.waits_since_us() <= limit_us) {
    return false;
  }
  log::error("process {}: nothing was heard of {} for {} s; its pages are given up",
             noted_.command(), move.destination(), context_.end_waiting_s);
  return true;
}

// The source that this process came from answers within a moment that it knows all. Without that a
// note of the session would stay until the machine is started again.
void GuestWorker::await_goodbye() {
  constexpr std::int64_t kGoodbyeUs = 2'000'000;
  const std::int64_t deadline_us = now_us() + kGoodbyeUs;
  for (hear_source(); control_ && now_us() < deadline_us; hear_source()) {
    pollfd polled{control_->channel().poll_fd(), POLLIN, 0};
    ::poll(&polled, 1, kStepMs);
  }
}

void GuestWorker::read_mailbox_while_leaving(SourceMove& move) {
  auto letter = mailbox_->receive(0);
  if (!letter) {
    return;
  }
  if (!is_request(*letter)) {
    if (letter->preamble->purpose == Purpose::kResume) {
      control_ =
          std::make_unique<ControlChannel>(std::move(letter->channel), letter->peer.to_string());
      send_verdict();
      hear_source();
    }
    return;
  }
  if (auto asked = open_request(std::move(*letter))) {
    refuse_while_leaving(move, std::move(*asked));
  }
}

// All but what an operator decides, who does that here: a home has a doubt of its own to decide.
void GuestWorker::refuse_while_leaving(SourceMove& move, LetterRequest asked) {
  EventSink& sink = asked.sink;
  const nlohmann::json request = parse_object(asked.text);
  const std::string who = "process " + noted_.command();
  const auto command = parse_command(request);
  if (!command) {
    sink.finish_failed(MIGRATE_USAGE, command.error());
  } else if (*command != Command::kResolve) {
    sink.finish_failed(MIGRATE_FAILED, make_error(ErrorCode::kRetry, "carry out a request", who,
                                                  "it is leaving this host; try again"));
  } else if (asked.home) {
    sink.finish_failed(MIGRATE_REFUSED, make_error(ErrorCode::kRefused, "resolve", who,
                                                   "ask on the host that it is leaving"));
  } else if (const auto resolution = parse_resolve(request); !resolution) {
    sink.finish_failed(MIGRATE_USAGE, resolution.error());
  } else if (const auto may = may_use(request, nullptr); !may) {
    sink.finish_failed(MIGRATE_REFUSED, may.error());
  } else {
    resolve_while_leaving(move, *resolution, std::move(sink));
  }
}

void GuestWorker::resolve_while_leaving(SourceMove& move, Resolution resolution, EventSink sink) {
  const std::string who = "process " + noted_.command();
  if (decision_.made()) {
    sink.finish_failed(MIGRATE_ERROR, make_error(ErrorCode::kRetry, "resolve", who,
                                                 "another such request is being carried out"));
  } else if (move.fate() == Fate::kUnknown) {
    decision_ = {resolution, std::move(sink)};
  } else if (resolution != Resolution::kGiveUp) {
    sink.finish_failed(MIGRATE_REFUSED, make_error(ErrorCode::kRefused, "resume", who,
                                                   "it is known to have run elsewhere"));
  } else if (move.waits_for().empty()) {
    sink.finish_failed(MIGRATE_REFUSED,
                       make_error(ErrorCode::kRefused, "give up", who,
                                  "it runs at " + move.destination() + ", which answers"));
  } else {
    log::warn("{}: an operator gives it up, as lost with {}", who, move.destination());
    give_up_ = true;
    sink.finish(MIGRATE_DONE, {{"process", to_hex(process_)}, {"resolved", to_string(resolution)}});
  }
}

}  // namespace migrate
