// The handover once Run was sent: what the destination says, and pages until nothing is owed, over
// as many connections as it takes.
#include <poll.h>

#include <chrono>

#include "base/log.h"
#include "libmigrate/move/handover.h"

namespace migrate {
namespace {

// The process's first faults come before the push: where it, the pager and the page server share
// two processors, it otherwise waits for a time slice of the push (4 ms) before its first
// instruction.
constexpr std::chrono::milliseconds kFirstFaults{2};

}  // namespace

// The connections are those over which the process was handed over, or have been made anew since.
bool Handover::linked() const {
  return phase_ == HandoverPhase::kRunSent || phase_ == HandoverPhase::kServing;
}

void Handover::handle() {
  farewell_.follow();
  const auto is_over = [this] {
    return phase_ == HandoverPhase::kOver || fate_ == Fate::kNeverRan;
  };
  if (!run_sent() || is_over()) {
    return;
  }
  read_control();
  if (report_.misses_deadline()) {
    log::warn("session {}: {} pages are still owed after the {} ms of its deadline",
              to_hex(session_), report_.progress().owed_pages(), options_.push.deadline.count());
  }
  if (is_over()) {
    return;
  }
  hand_on_confirmed();
  if (pages_.broken() && linked()) {
    lose_control(make_error(ErrorCode::kPeerLost, "send pages to", name()));
  }
  keep_alive();
  if (!control_ && outage_.attempt_is_due(world_.clock())) {
    reconnect();
  }
}

// Not before it is certain that the process runs there: in mode eager pages are confirmed long
// before Run, and in doubt the process may yet go on here, and needs them.
void Handover::hand_on_confirmed() {
  if (fate_ != Fate::kRuns || !pages_.serving()) {
    return;
  }
  pages_.expose_memory();
  memory_.note_confirmed(options_.number, pages_.take_confirmed());
}

void Handover::read_control() {
  while (control_ && phase_ != HandoverPhase::kOver) {
    auto message = control_->try_receive();
    if (!message) {
      lose_control(message.error());
    } else if (!*message) {
      return;
    } else {
      keep_alive_.note_heard(world_.clock());
      take(**message);
    }
  }
}

void Handover::take(const wire::ControlMessage& message) {
  switch (message.body_case()) {
    case wire::ControlMessage::kRunning:  // It came late.
      take_fate(Fate::kRuns);
      break;
    case wire::ControlMessage::kProgress:
      report_.note_progress(message.progress());
      take_fate(Fate::kRuns);
      if (message.progress().done()) {
        finish();
      }
      break;
    case wire::ControlMessage::kVerdict:
      take_verdict(message.verdict());
      break;
    case wire::ControlMessage::kSendAll:
      pages_.start_push();
      break;
    case wire::ControlMessage::kFailed:
      error_ = make_error(ErrorCode::kRefused, "move", {}, message.failed().reason());
      take_fate(Fate::kNeverRan);
      break;
    default:
      log::warn("{} sent a message that a source has no use for", name());
      break;
  }
}

// Blocks: a host that does not answer is given the time of a connection and of an answer.
void Handover::ask_once_more() {
  constexpr int kLookMs = 50;
  if (!control_ && phase_ != HandoverPhase::kOver) {
    reconnect();
  }
  const std::int64_t deadline_us =
      world_.clock() + std::int64_t{options_.patience.once_more_ms} * 1000;
  while (control_ && fate_ == Fate::kUnknown && world_.clock() < deadline_us) {
    pollfd polled{poll_fd(), POLLIN, 0};
    ::poll(&polled, 1, kLookMs);
    read_control();
  }
}

void Handover::take_verdict(const wire::Verdict& verdict) {
  switch (verdict.fate()) {
    case wire::Verdict::RUNS: {
      wire::ControlMessage message;
      *message.mutable_progress() = verdict.progress();
      take(message);
      if (phase_ == HandoverPhase::kOver) {
        break;
      }
      if (auto linked = connect_again(); !linked) {
        lose_control(linked.error());
      }
      break;
    }
    case wire::Verdict::NEVER_RAN:
      if (fate_ == Fate::kUnknown && verdict.incarnation() == incarnation_) {
        error_ = make_error(ErrorCode::kPeerLost, "move", {}, verdict.reason());
        take_fate(Fate::kNeverRan);
      } else {
        // It knows nothing of what it did before it was started again.
        lose_control(forgotten_error("; see migratectl resolve"));
      }
      break;
    case wire::Verdict::ENDED:
      error_ = make_error(ErrorCode::kPeerLost, "keep", "the process", verdict.reason());
      wait_status_ = verdict.wait_status();
      take_fate(Fate::kEnded);
      finish();
      break;
    default:  // Nothing is known more than before.
      lose_control(make_error(ErrorCode::kCorrupt, "learn what became of the process at", name(),
                              "its host says nothing that this host knows"));
      break;
  }
}

void Handover::take_fate(Fate fate) {
  const bool news = fate_ == Fate::kUnknown;
  if (!news && (fate == Fate::kNeverRan || fate == fate_)) {
    return;  // What ran has run, whatever anyone says.
  }
  fate_ = fate;
  if (fate == Fate::kNeverRan) {
    memory_.leave(options_.number);
  }
  if (fate == Fate::kRuns && phase_ == HandoverPhase::kRunSent) {
    phase_ = HandoverPhase::kServing;
  }
  if (fate == Fate::kRuns && news) {
    report_.note_running();
    note();
    options_.context->stops.reach("source.confirmed");
    pages_.push(kFirstFaults);
  }
}

void Handover::lose_control(const Error& error) {
  log::debug("session {}: {}", to_hex(session_), error.message());
  outage_.begin(name() + ": " + error.message(), world_.clock());
  phase_ = HandoverPhase::kCut;
  control_.reset();
  pages_.drop_bulk();
}

void Handover::keep_alive() {
  if (!control_) {
    return;
  }
  const std::int64_t now = world_.clock();
  if (keep_alive_.is_lost(now)) {
    lose_control(make_error(ErrorCode::kPeerLost, "hear from the destination", {},
                            "nothing came for five seconds"));
    return;
  }
  if (keep_alive_.takes_ping(now)) {
    wire::ControlMessage message;
    message.mutable_ping();
    if (auto sent = control_->send(message); !sent) {
      lose_control(sent.error());
    }
  }
}

// The destination's verdict comes first; pages follow it.
void Handover::reconnect() {
  outage_.note_attempt(world_.clock());
  if (auto connected = connect_control(Purpose::kResume); !connected) {
    lose_control(connected.error());
    return;
  }
  phase_ = HandoverPhase::kAsked;
  keep_alive_.note_heard(world_.clock());
}

// Where there are no pages to serve any more, listening is all there is to do.
Result<void> Handover::connect_again() {
  if (!pages_.stopped()) {
    MIGRATE_TRY(pages_.open_again(memory_, page_server_options()));
    log::info("session {} goes on over new connections, its pages over {}", to_hex(session_),
              pages_.transport());
  }
  phase_ = HandoverPhase::kServing;
  outage_.end();
  return {};
}

void Handover::close() {
  pages_.stop();
  pages_.close();
  control_.reset();
}

void Handover::finish() {
  options_.context->stops.reach("source.done");
  phase_ = HandoverPhase::kOver;
  pages_.stop();
  report_.note_done(pages_.wire_bytes());
  pages_.close();
  memory_.leave(options_.number);
  wire::ControlMessage goodbye;
  goodbye.mutable_goodbye();
  static_cast<void>(control_->send(goodbye));
  farewell_.begin(std::move(control_));
  outage_.end();
  note();
}

void Handover::note() {
  if (auto noted = world_.note(outgoing()); !noted) {
    log::warn("session {}: {}", to_hex(session_), noted.error().message());
  }
}

}  // namespace migrate
