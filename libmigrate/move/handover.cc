// The handover until Run is answered. handover_serving.cc has what follows.
#include "libmigrate/move/handover.h"

#include <algorithm>
#include <utility>

#include "base/clock.h"
#include "base/log.h"
#include "libmigrate/image/refusal.h"
#include "libmigrate/move/link_probe.h"
#include "libmigrate/pages/channel_link.h"

namespace migrate {
namespace {

constexpr std::size_t kMaxReplyBytes = std::size_t{4} << 20U;  // It says little.

}  // namespace

Handover::Handover(HandoverOptions options, World world, KeptMemory& memory, MoveReport& report)
    : options_(std::move(options)),
      world_(std::move(world)),
      memory_(memory),
      report_(report),
      farewell_(world_.clock),
      pages_(PageRoute(options_.transport, *options_.context),
             [this](Purpose purpose) { return world_.connect(purpose, session_); }) {}

Result<void> Handover::connect_control(Purpose purpose) {
  control_ =
      std::make_unique<ControlChannel>(MIGRATE_TRY(world_.connect(purpose, session_)), name());
  control_->set_longest_message(kMaxReplyBytes);
  return {};
}

Result<void> Handover::open() {
  session_ = MIGRATE_TRY(random_session_id());
  return connect_control(Purpose::kOffer);
}

Result<void> Handover::offer(wire::Offer offer, const ClockOffsets& offsets) {
  wire::ControlMessage message;
  *message.mutable_offer() = std::move(offer);
  message.mutable_offer()->set_mode(std::string(options_.plan.word));
  if (!options_.plan.only_asks) {
    for (const std::string& word : pages_.wanted()) {
      message.mutable_offer()->add_page_transports(word);
    }
  }
  message.mutable_offer()->set_hurries(options_.push.deadline.count() > 0);
  MIGRATE_TRY(control_->send(message));
  const auto reply = MIGRATE_TRY(await_reply(offsets));
  incarnation_ = reply.offer_reply().incarnation();
  if (reply.offer_reply().has_unkept()) {
    unkept_ = reply.offer_reply().unkept();
  }
  staged_pages_ = reply.offer_reply().staged_pages();
  answers_probes_ = reply.offer_reply().answers_probes();
  refusals_.assign(reply.offer_reply().refusals().begin(), reply.offer_reply().refusals().end());
  if (std::ranges::all_of(refusals_, is_about_files)) {  // Otherwise it did not look for all.
    FilesNotThere& not_there = not_there_.emplace();
    not_there.mapped.insert(reply.offer_reply().files_not_there().begin(),
                            reply.offer_reply().files_not_there().end());
    not_there.executable = reply.offer_reply().executable_not_there();
  }
  if (!refusals_.empty()) {
    return fail(make_error(ErrorCode::kRefused, "move the process to", name()));
  }
  return options_.plan.only_asks ? Result<void>() : pages_.settle(session_, reply.offer_reply());
}

// Tells the time as often as the destination asks, until it answers the offer.
Result<wire::ControlMessage> Handover::await_reply(const ClockOffsets& offsets) {
  for (;;) {
    wire::ControlMessage message =
        MIGRATE_TRY(control_->receive(kFreezeSpinUs, options_.patience.reply_ms));
    if (message.has_clock_request()) {
      wire::ControlMessage answer;
      answer.mutable_clocks()->set_monotonic_ns(clock_ns(CLOCK_MONOTONIC) + offsets.monotonic_ns);
      answer.mutable_clocks()->set_boottime_ns(clock_ns(CLOCK_BOOTTIME) + offsets.boottime_ns);
      MIGRATE_TRY(control_->send(answer));
      continue;
    }
    if (message.has_failed()) {
      return fail(make_error(ErrorCode::kRefused, "move", {}, message.failed().reason()));
    }
    if (!message.has_offer_reply()) {
      return fail(make_error(ErrorCode::kCorrupt, "read the answer to an offer"));
    }
    return message;
  }
}

std::optional<LinkSpeed> Handover::probe() {
  if (!answers_probes_ || !control_) {
    return std::nullopt;
  }
  auto link = probe_link(*control_);
  if (!link) {
    log::debug("the way to {} is not known: {}", name(), link.error().message());
    return std::nullopt;
  }
  return *link;
}

Result<void> Handover::connect_pages() {
  MIGRATE_TRY(pages_.open());
  // Handing them over takes two daemons' children: not while the process is frozen.
  MIGRATE_TRY(control_->expect(wire::ControlMessage::kConnected, 0, options_.patience.reply_ms));
  phase_ = HandoverPhase::kOffered;
  options_.context->stops.reach("source.offered");
  return world_.note(outgoing());
}

Result<void> Handover::copy_ahead(CopyAhead& ahead) {
  constexpr int kLastWordMs = 1000;
  const CopyAhead::Options options{
      .limits = options_.rounds,
      .most_pages = staged_pages_,
      .bytes_per_second = page_server_options().push_bytes_per_second,
      .still_wanted = world_.still_wanted,
      .on_round = [this] { options_.context->stops.reach("source.round"); }};
  ChannelLink link(pages_.bulk());
  auto sent = ahead.run(link, options);
  if (!sent && sent.error().code == ErrorCode::kPeerLost) {
    auto said = control_->expect(wire::ControlMessage::kRestored, 0, kLastWordMs);
    if (!said && said.error().code == ErrorCode::kRefused) {
      return fail(std::move(said).error());
    }
  }
  return sent;
}

Result<void> Handover::send_kept(CopyAhead& ahead) {
  ChannelLink link(pages_.bulk());
  return ahead.send_kept(link);
}

Result<void> Handover::send_image(std::string_view image, wire::RelayState relay) {
  return control_->send_final(std::move(relay), image);
}

Result<void> Handover::send_content(const wire::Objects& objects,
                                    const carriers::ContentFiles& files) {
  for (carriers::ContentPlace place(objects); !place.at_end();) {
    MIGRATE_TRY(world_.still_wanted());
    wire::ControlMessage message;
    *message.mutable_content()->mutable_data() = MIGRATE_TRY(carriers::read_content(place, files));
    MIGRATE_TRY(control_->send(message));
  }
  return {};
}

PageServerOptions Handover::page_server_options() const {
  return {.push = options_.plan.push,
          .spin_us = options_.context->spin_us,
          .push_bytes_per_second =
              options_.push.bytes_per_second.value_or(options_.context->push_bytes_per_second),
          .push_deadline = options_.push.deadline,
          .push_hurries = options_.plan.all_before_run};
}

Result<void> Handover::serve() {
  pages_.serve(MIGRATE_TRY(memory_.make_feed(page_server_options())));
  return {};
}

Result<void> Handover::await_restored() {
  constexpr int kLookMs = 200;  // With all pages before, it takes as long as they do.
  int left_ms =
      options_.plan.all_before_run ? options_.patience.all_pages_ms : options_.patience.restored_ms;
  for (;; left_ms -= kLookMs) {
    const auto restored =
        control_->expect(wire::ControlMessage::kRestored, 0, std::min(left_ms, kLookMs));
    if (restored || restored.error().code != ErrorCode::kRetry || left_ms <= kLookMs) {
      return restored ? Result<void>() : Result<void>(fail(restored.error()));
    }
    MIGRATE_TRY(world_.still_wanted());
  }
}

void Handover::abandon() {
  pages_.close();
  control_.reset();
}

Result<void> Handover::run(const std::vector<std::string>& signals) {
  const std::int64_t start = world_.clock();
  wire::ControlMessage message;
  message.mutable_run();
  for (const std::string& signal : signals) {
    message.mutable_run()->add_signals(signal);
  }
  phase_ = HandoverPhase::kRunSent;
  keep_alive_.note_heard(start);
  auto ran = [&]() -> Result<void> {
    MIGRATE_TRY(control_->send(message));
    options_.context->stops.reach("source.run_sent");
    MIGRATE_TRY(control_->expect(wire::ControlMessage::kRunning, 0, options_.patience.running_ms));
    return {};
  }();
  if (ran) {
    report_.end_phase("run", start);
    options_.context->stops.reach("source.running");
    take_fate(Fate::kRuns);
    return ran;
  }
  error_ = ran.error();
  if (error_.code == ErrorCode::kRefused) {
    take_fate(Fate::kNeverRan);  // It said so.
  } else {
    lose_control(error_);
  }
  return ran;
}

void Handover::adopt(const wire::Outgoing& outgoing, Original original) {
  const auto* const bytes = reinterpret_cast<const std::byte*>(outgoing.session().data());
  std::copy_n(bytes, std::min(outgoing.session().size(), session_.size()), session_.begin());
  incarnation_ = outgoing.incarnation();
  fate_ = outgoing.confirmed() ? Fate::kRuns : Fate::kUnknown;
  if (original == Original::kGone) {
    pages_.stop();
  }
  report_.note_running();
  if (outgoing.done()) {
    phase_ = HandoverPhase::kOver;
    report_.note_done(0);
    return;
  }
  phase_ = HandoverPhase::kCut;
  const std::string reason = "the worker here was started again";
  error_ = make_error(ErrorCode::kPeerLost, "hear from the destination", {}, reason);
  outage_.begin(outgoing.destination() + ": " + reason, world_.clock());
}

Result<wire::Verdict> Handover::ask_verdict(const SessionId& session,
                                            const std::string& incarnation) {
  session_ = session;
  incarnation_ = incarnation;
  ControlChannel control(MIGRATE_TRY(world_.connect(Purpose::kResume, session_)), name());
  control.set_longest_message(kMaxReplyBytes);
  auto message =
      MIGRATE_TRY(control.expect(wire::ControlMessage::kVerdict, 0, options_.patience.verdict_ms));
  if (!wire::Verdict::Fate_IsValid(message.verdict().fate()) ||
      message.verdict().fate() == wire::Verdict::UNKNOWN) {
    return fail(make_error(ErrorCode::kCorrupt, "learn what became of the process at", name()));
  }
  if (message.verdict().fate() == wire::Verdict::NEVER_RAN &&
      message.verdict().incarnation() != incarnation_) {
    return fail(forgotten_error(""));
  }
  return std::move(*message.mutable_verdict());
}

// Of a destination that says "never ran" and cannot know.
Error Handover::forgotten_error(const std::string& remedy) const {
  return make_error(ErrorCode::kPeerLost, "learn what became of the process at", name(),
                    "that host was started again, or has lost its state directory" + remedy);
}

wire::Outgoing Handover::outgoing() const {
  wire::Outgoing outgoing;
  outgoing.set_session(session_.data(), session_.size());
  outgoing.set_destination(name());
  outgoing.set_incarnation(incarnation_);
  outgoing.set_mode(std::string(options_.plan.word));
  outgoing.set_confirmed(fate_ == Fate::kRuns);
  outgoing.set_done(phase_ == HandoverPhase::kOver);
  return outgoing;
}

}  // namespace migrate
