// The source's side of a move once Run was sent: what the destination says, and pages until nothing
// is owed, over as many connections as it takes.
#include <poll.h>

#include <algorithm>
#include <chrono>

#include "base/clock.h"
#include "base/log.h"
#include "libmigrate/move/control_channel.h"
#include "libmigrate/move/source_move.h"

namespace migrate {
namespace {

// The process's first faults come before the push: where it, the pager and the page server share
// two processors, it otherwise waits for a time slice of the push (4 ms) before its first
// instruction.
constexpr std::chrono::milliseconds kFirstFaults{2};
// An attempt may block for seconds: before the first one, the caller shows that it waits.
constexpr std::int64_t kFirstPauseUs = 50'000;
constexpr std::int64_t kShortestPauseUs = 100'000;  // between attempts to connect again
constexpr std::int64_t kLongestPauseUs = 5'000'000;
constexpr std::int64_t kPingEveryUs = 1'000'000;
constexpr std::size_t kOnlyHandover = 0;  // One process goes to one destination.

}  // namespace

void SourceMove::stop_serving() {
  serving_stopped_ = true;
  if (feed_) {
    feed_->stop();
  }
}

ParkedProcess SourceMove::serve_from(ParkedProcess keeper) {
  if (feed_) {
    feed_->follow(keeper.process());
  }
  ParkedProcess ended = std::move(*parked_);
  parked_.emplace(std::move(keeper));
  remains_ = Remains::kHere;
  return ended;
}

int SourceMove::control_fd() const {
  return control_ ? control_->channel().poll_fd() : farewell_.poll_fd();
}

Remains SourceMove::handle() {
  farewell_.follow();
  if (done_ || (!parked_ && !serving_stopped_) || fate_ == Fate::kNeverRan) {
    return remains_;
  }
  read_control();
  if (report_.misses_deadline()) {
    log::warn("session {}: {} pages are still owed after the {} ms of its deadline",
              to_hex(session_), owed_pages(), options_.push.deadline.count());
  }
  if (done_ || fate_ == Fate::kNeverRan) {
    return remains_;
  }
  if (feed_ && !serving_stopped_) {
    if (fate_ == Fate::kRuns) {
      feed_->expose_memory();
      free_confirmed();
    }
    if (feed_->broken() && control_ && linked_) {
      lose_control(
          make_error(ErrorCode::kPeerLost, "send pages to", options_.destination.to_string()));
    }
  }
  keep_alive();
  if (!control_ && now_us() >= next_reconnect_us_) {
    reconnect();
  }
  return remains_;
}

// Not before it is certain that the process runs there: in mode eager pages are confirmed long
// before Run, and in doubt the process may yet go on here, and needs them.
void SourceMove::free_confirmed() {
  if (remains_ == Remains::kGone) {
    return;
  }
  confirmed_.note(kOnlyHandover, feed_->server().take_confirmed());
  remains_ = give_back(confirmed_, [this](const std::vector<PageRange>& ranges) {
    auto freed = parked_->free(ranges);
    if (!freed) {
      log::warn("session {}: {}", to_hex(session_), freed.error().message());
    }
    return freed;
  });
}

void SourceMove::read_control() {
  while (control_ && !done_) {
    auto message = control_->try_receive();
    if (!message) {
      lose_control(message.error());
    } else if (!*message) {
      return;
    } else {
      last_heard_us_ = now_us();
      take(**message);
    }
  }
}

void SourceMove::take(const wire::ControlMessage& message) {
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
      if (feed_) {
        feed_->server().start_push();
      }
      break;
    case wire::ControlMessage::kFailed:
      error_ = make_error(ErrorCode::kRefused, "move", {}, message.failed().reason());
      take_fate(Fate::kNeverRan);
      break;
    default:
      break;
  }
}

// Blocks: a host that does not answer is given the time of a connection and of an answer.
void SourceMove::ask_once_more() {
  constexpr std::int64_t kAnswerUs = 2'000'000;
  constexpr int kLookMs = 50;
  if (!control_) {
    reconnect();
  }
  const std::int64_t deadline_us = now_us() + kAnswerUs;
  while (control_ && fate_ == Fate::kUnknown && now_us() < deadline_us) {
    pollfd polled{control_fd(), POLLIN, 0};
    ::poll(&polled, 1, kLookMs);
    read_control();
  }
}

Result<wire::Verdict> SourceMove::ask_verdict(const SessionId& session,
                                              const std::string& incarnation) {
  constexpr int kAnswerMs = 3000;
  session_ = session;
  incarnation_ = incarnation;
  ControlChannel control(MIGRATE_TRY(connect(Purpose::kResume)), options_.destination.to_string());
  control.set_longest_message(kMaxReplyBytes);
  auto message = MIGRATE_TRY(control.expect(wire::ControlMessage::kVerdict, 0, kAnswerMs));
  if (message.verdict().fate() == wire::Verdict::NEVER_RAN &&
      message.verdict().incarnation() != incarnation_) {
    return fail(make_error(ErrorCode::kPeerLost, "learn what became of the process at",
                           options_.destination.to_string(),
                           "that host was started again, or has lost its state directory"));
  }
  return std::move(*message.mutable_verdict());
}

void SourceMove::take_verdict(const wire::Verdict& verdict) {
  switch (verdict.fate()) {
    case wire::Verdict::RUNS: {
      wire::ControlMessage message;
      *message.mutable_progress() = verdict.progress();
      take(message);
      if (serving_stopped_) {
        waits_for_.clear();
      } else if (!done_) {
        if (auto linked = connect_again(); !linked) {
          lose_control(linked.error());
        }
      }
      break;
    }
    case wire::Verdict::NEVER_RAN:
      if (fate_ == Fate::kUnknown && verdict.incarnation() == incarnation_) {
        error_ = make_error(ErrorCode::kPeerLost, "move", {}, verdict.reason());
        take_fate(Fate::kNeverRan);
      } else {
        // It knows nothing of what it did before it was started again.
        lose_control(make_error(ErrorCode::kPeerLost, "learn what became of the process at",
                                options_.destination.to_string(),
                                "that host was started again, or has lost its state directory; see "
                                "migratectl resolve"));
      }
      break;
    default:
      error_ = make_error(ErrorCode::kPeerLost, "keep", "the process", verdict.reason());
      wait_status_ = verdict.wait_status();
      take_fate(Fate::kEnded);
      finish();
      break;
  }
}

void SourceMove::take_fate(Fate fate) {
  const bool news = fate_ == Fate::kUnknown;
  if (!news && (fate == Fate::kNeverRan || fate == fate_)) {
    return;  // What ran has run, whatever anyone says.
  }
  fate_ = fate;
  if (fate == Fate::kRuns && news) {
    report_.note_running();
    if (auto noted = hooks_.on_outgoing(outgoing()); !noted) {
      log::warn("session {}: {}", to_hex(session_), noted.error().message());
    }
    options_.context->stops.reach("source.confirmed");
    start_push(kFirstFaults);
  }
}

void SourceMove::lose_control(const Error& error) {
  log::debug("session {}: {}", to_hex(session_), error.message());
  if (waits_for_.empty()) {
    waits_since_us_ = now_us();
    next_reconnect_us_ = now_us() + kFirstPauseUs;
    reconnect_pause_us_ = kShortestPauseUs;
  }
  waits_for_ = options_.destination.to_string() + ": " + error.message();
  control_.reset();
  bulk_.reset();
  linked_ = false;
}

// A peer whose kernel lives and who does not answer is lost too, sooner or later.
void SourceMove::keep_alive() {
  if (!control_) {
    return;
  }
  const std::int64_t now = now_us();
  if (now - last_heard_us_ > kSilenceUs) {
    lose_control(make_error(ErrorCode::kPeerLost, "hear from the destination", {},
                            "nothing came for five seconds"));
    return;
  }
  if (now - last_sent_us_ > kPingEveryUs) {
    last_sent_us_ = now;
    wire::ControlMessage message;
    message.mutable_ping();
    if (auto sent = control_->send(message); !sent) {
      lose_control(sent.error());
    }
  }
}

// The destination's verdict comes first; pages follow it.
void SourceMove::reconnect() {
  next_reconnect_us_ = now_us() + reconnect_pause_us_;
  reconnect_pause_us_ =
      std::min(2 * std::max(reconnect_pause_us_, kShortestPauseUs), kLongestPauseUs);
  auto control = connect(Purpose::kResume);
  if (!control) {
    lose_control(control.error());
    return;
  }
  control_ =
      std::make_unique<ControlChannel>(std::move(*control), options_.destination.to_string());
  control_->set_longest_message(kMaxReplyBytes);
  last_heard_us_ = now_us();
}

Result<void> SourceMove::connect_again() {
  bulk_.reset();
  rdma_.allow_tcp();
  std::shared_ptr<Channel> urgent = MIGRATE_TRY(connect_pages(Purpose::kUrgent));
  std::shared_ptr<Channel> bulk = MIGRATE_TRY(connect_pages(Purpose::kBulk));
  if (!feed_) {
    feed_ = MIGRATE_TRY(make_feed());
  }
  feed_->disconnect();
  feed_->serve(std::move(urgent));
  feed_->push(std::move(bulk), std::chrono::microseconds(0));
  linked_ = true;
  waits_for_.clear();
  log::info("session {} goes on over new connections, its pages over {}", to_hex(session_),
            page_transport_);
  return {};
}

Result<void> SourceMove::resume_here() {
  stop_serving();
  feed_.reset();
  control_.reset();
  MIGRATE_TRY(parked_->unpark(image_));
  hooks_.thaw_relay();
  return {};
}

wire::Outgoing SourceMove::outgoing() const {
  wire::Outgoing outgoing;
  outgoing.set_session(session_.data(), session_.size());
  outgoing.set_destination(options_.destination.to_string());
  outgoing.set_incarnation(incarnation_);
  outgoing.set_mode(std::string(options_.plan.word));
  outgoing.set_confirmed(fate_ == Fate::kRuns);
  outgoing.set_done(done_);
  return outgoing;
}

std::unique_ptr<SourceMove> SourceMove::adopt(SourceMoveOptions options, Hooks hooks,
                                              EventSink& sink, std::optional<ParkedProcess> parked,
                                              wire::Image image, const wire::Outgoing& outgoing) {
  auto move = std::make_unique<SourceMove>(std::move(options), std::move(hooks), sink);
  const auto* const bytes = reinterpret_cast<const std::byte*>(outgoing.session().data());
  std::copy_n(bytes, std::min(outgoing.session().size(), move->session_.size()),
              move->session_.begin());
  move->incarnation_ = outgoing.incarnation();
  move->image_ = std::move(image);
  if (parked) {
    move->parked_.emplace(std::move(*parked));
  }
  move->serving_stopped_ = !move->parked_;
  move->fate_ = outgoing.confirmed() ? Fate::kRuns : Fate::kUnknown;
  move->run_sent_ = true;
  move->done_ = outgoing.done();
  move->report_.begin();
  move->report_.note_running();
  if (move->done_) {
    move->report_.note_done(0);
  }
  move->waits_since_us_ = now_us();
  move->next_reconnect_us_ = now_us() + kFirstPauseUs;
  if (!move->done_) {
    move->error_ = make_error(ErrorCode::kPeerLost, "hear from the destination", {},
                              "the worker here was started again");
    move->waits_for_ = outgoing.destination() + ": the worker here was started again";
  }
  return move;
}

void SourceMove::finish() {
  options_.context->stops.reach("source.done");
  done_ = true;
  if (feed_) {
    feed_->stop();
  }
  report_.note_done(wire_bytes());
  feed_.reset();
  wire::ControlMessage goodbye;
  goodbye.mutable_goodbye();
  static_cast<void>(control_->send(goodbye));
  farewell_.begin(std::move(control_));
  waits_for_.clear();
  if (auto noted = hooks_.on_outgoing(outgoing()); !noted) {
    log::warn("session {}: {}", to_hex(session_), noted.error().message());
  }
}

}  // namespace migrate
