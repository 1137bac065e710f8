#include "libmigrate/move/source_move.h"

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

#include "base/clock.h"
#include "libmigrate/advisor/choice_json.h"
#include "libmigrate/host/refusals_json.h"
#include "libmigrate/image/only_process.h"
#include "libmigrate/image/refusal.h"
#include "libmigrate/move/childless_moment.h"
#include "libmigrate/trace/tracee.h"
#include "transport/proof.h"

namespace migrate {
namespace {

constexpr int kConnectTimeoutMs = 5000;
constexpr auto kFirstPages = std::chrono::milliseconds(1);
constexpr auto kRetryPause = std::chrono::milliseconds(20);
// A process that changes (threads, mappings, its program) between the inspection and the freeze is
// tried again for so long, asked for or not.
constexpr std::int64_t kChangesUs = 2'000'000;
constexpr auto kChildlessMoment = std::chrono::milliseconds(2000);

/// Whether the program itself is in the way, for a moment; what else is seen then may be of that
/// moment, too, such as its connection to the daemon.
bool is_held(const Refusals& refusals) {
  return std::ranges::find(refusals, "HELD", &wire::Refusal::code) != refusals.end();
}

/// Opens a connection of `session` to where the process goes, and proves that it is of its source.
Result<std::unique_ptr<Channel>> connect_for(const SourceMoveOptions& options, Purpose purpose,
                                             const SessionId& session) {
  const Preamble preamble{.purpose = purpose, .session = session};
  auto peer =
      MIGRATE_TRY(options.context->trust.connect(options.destination, preamble, kConnectTimeoutMs));
  if (purpose != Purpose::kOffer) {
    MIGRATE_TRY(give_proof(*peer.channel, options.token, preamble, kConnectTimeoutMs));
  }
  return std::move(peer.channel);
}

}  // namespace

SourceMove::SourceMove(SourceMoveOptions options, Hooks hooks, EventSink& sink)
    : options_(std::move(options)),
      hooks_(std::move(hooks)),
      sink_(sink),
      plan_(options_.request.plan),
      report_(options_.request.push.deadline),
      source_(options_, hooks_.on_area, report_),
      handover_(make_handover(plan_)) {}

SourceMove::~SourceMove() = default;

std::unique_ptr<Handover> SourceMove::make_handover(const MovePlan& plan) {
  Handover::World world;
  world.connect = [this](Purpose purpose, const SessionId& session) {
    return connect_for(options_, purpose, session);
  };
  world.note = hooks_.on_outgoing;
  world.still_wanted = [this] { return still_wanted(); };
  return std::make_unique<Handover>(HandoverOptions{.destination = options_.destination,
                                                    .plan = plan,
                                                    .transport = options_.request.transport,
                                                    .push = options_.request.push,
                                                    .rounds = options_.request.rounds,
                                                    .context = options_.context,
                                                    .number = 0,
                                                    .patience = {}},
                                    std::move(world), source_, report_);
}

std::unique_ptr<SourceMove> SourceMove::adopt(SourceMoveOptions options, Hooks hooks,
                                              EventSink& sink, std::optional<ParkedProcess> parked,
                                              wire::Image image, const wire::Outgoing& outgoing) {
  auto move = std::make_unique<SourceMove>(std::move(options), std::move(hooks), sink);
  move->report_.begin();
  move->handover_->adopt(outgoing, parked ? Original::kHere : Original::kGone);
  move->source_.adopt(std::move(parked), std::move(image));
  return move;
}

void SourceMove::event(const char* phase, std::int64_t start_us) {
  sink_.send({{"event", "phase"}, {"phase", phase}, {"at_us", start_us - report_.begun_us()}});
}

const std::vector<wire::Refusal>& SourceMove::refusals() const {
  return source_.refusals().empty() ? handover_->refusals() : source_.refusals();
}

const Error& SourceMove::error() const {
  return handover_->run_sent() ? handover_->error() : error_;
}

MoveOutcome SourceMove::attempt_for(double seconds) {
  const std::int64_t start_us = now_us();
  const auto refused_until_us = start_us + static_cast<std::int64_t>(seconds * 1e6);
  const std::int64_t changed_until_us = std::max(refused_until_us, start_us + kChangesUs);
  for (;;) {
    const auto [outcome, process_changed] = attempt();
    const bool held = outcome == MoveOutcome::kRefused && is_held(refusals());
    const bool refused = held || (outcome == MoveOutcome::kRefused && all_transient(refusals()));
    const bool busy = outcome == MoveOutcome::kFailed && error_.code == ErrorCode::kBusy;
    const bool failed =
        outcome == MoveOutcome::kFailed &&
        (error_.code == ErrorCode::kRetry ||
         error_.code == ErrorCode::kPeerLost);  // The destination's daemon may be starting anew.
    const std::int64_t until_us =
        process_changed || busy || held ? changed_until_us : refused_until_us;
    if ((!refused && !failed && !busy) || now_us() >= until_us) {
      return outcome;
    }
    std::this_thread::sleep_for(kRetryPause);
  }
}

SourceMove::Attempt SourceMove::attempt() {
  source_.begin();
  plan_ = options_.request.plan;
  choice_.reset();
  handover_ = make_handover(plan_);
  report_.begin();
  bool here = true;  // what is done concerns this host's process, not the destination
  auto moved = [&]() -> Result<void> {
    MIGRATE_TRY(still_wanted());
    MIGRATE_TRY(inspect());
    if (plan_.decides) {
      MIGRATE_TRY(choose());
    }
    here = false;
    const ClockOffsets offsets = MIGRATE_TRY(offer());
    MIGRATE_TRY(handover_->connect_pages());
    MIGRATE_TRY(still_wanted());
    here = true;
    if (plan_.rounds) {
      MIGRATE_TRY(copy_ahead());
    }
    MIGRATE_TRY(
        await_childless_moment(options_.pid, kChildlessMoment, [this] { return still_wanted(); }));
    return freeze_and_run(offsets);
  }();
  if (moved || handover_->run_sent()) {
    sink_.leave_program();
  }
  if (moved) {
    // Its first pages come before what is left to do here.
    source_.forget_asker();
    std::this_thread::sleep_for(kFirstPages);
    return {MoveOutcome::kCommitted, false};
  }
  if (handover_->run_sent()) {
    return {MoveOutcome::kInDoubt, false};
  }
  error_ = std::move(moved).error();
  handover_->abandon();
  source_.end_watch();
  return {refusals().empty() ? MoveOutcome::kFailed : MoveOutcome::kRefused,
          here && error_.code == ErrorCode::kRetry};
}

Result<std::vector<wire::Refusal>> SourceMove::check() {
  auto checked = inspect();
  for (const std::int64_t until_us = now_us() + kChangesUs;
       !checked && checked.error().code == ErrorCode::kRetry && now_us() < until_us;) {
    std::this_thread::sleep_for(kRetryPause);
    source_.begin();
    checked = inspect();
  }
  if (checked && !options_.destination.host.empty()) {
    if (auto offered = offer(); !offered) {
      checked = fail(std::move(offered).error());
    } else if (plan_.decides) {
      checked = advise(handover_->probe());
    }
    handover_->abandon();
  }
  if (!checked && refusals().empty()) {
    return fail(std::move(checked).error());
  }
  return refusals();
}

// Once Run is sent, nobody can take it back.
Result<void> SourceMove::still_wanted() {
  if (sink_.cancel_asked()) {
    return fail(make_error(ErrorCode::kCancelled, "move", "process " + options_.command));
  }
  return {};
}

Result<void> SourceMove::inspect() {
  event("inspect", report_.begun_us());
  return source_.inspect(plan_.rounds);
}

Result<void> SourceMove::offer_draft(const ClockOffsets& offsets) {
  MIGRATE_TRY(handover_->open());
  return handover_->offer(MIGRATE_TRY(source_.describe(offsets)), offsets);
}

// By an offer of the process as it is, which nobody is to take.
Result<void> SourceMove::ask_for_files(const ClockOffsets& offsets) {
  handover_ = make_handover(check_plan());
  auto asked = offer_draft(offsets);
  const FilesNotThere not_there = handover_->not_there().value_or(FilesNotThere());
  if (!asked && not_there.empty()) {
    return asked;
  }
  handover_->abandon();
  handover_ = make_handover(plan_);
  return source_.learn(not_there)
             ? Result<void>()
             : fail(make_error(ErrorCode::kRefused, "move", "process " + options_.command));
}

// The process's, minus this host's.
Result<ClockOffsets> SourceMove::process_clocks() const {
  ClockOffsets offsets = MIGRATE_TRY(clock_offsets(options_.pid));
  offsets.monotonic_ns -= options_.host_clocks.monotonic_ns;
  offsets.boottime_ns -= options_.host_clocks.boottime_ns;
  return offsets;
}

PastMoves SourceMove::past_moves() const {
  return {
      options_.context->state_directory,
      options_.destination.to_string() + " " + std::string(to_string(options_.request.transport))};
}

// The mode of this attempt. Whether the destination takes the process, its offer tells.
Result<void> SourceMove::choose() {
  const std::int64_t start = now_us();
  event("choose", start);
  std::optional<LinkSpeed> link;
  if (!past_moves().read().knows_pages()) {
    handover_ = make_handover(check_plan());
    static_cast<void>(offer_draft(MIGRATE_TRY(process_clocks())));
    link = handover_->probe();
    handover_->abandon();
  }
  MIGRATE_TRY(advise(link));
  plan_ = choice_->best().plan;
  handover_ = make_handover(plan_);
  report_.end_phase("choose", start);
  return {};
}

// `link`: what probes told of the way, if there were any.
Result<void> SourceMove::advise(const std::optional<LinkSpeed>& link) {
  MoveFacts facts;
  auto sampled = source_.sample(options_.request.wish.sample, [this] { return still_wanted(); });
  if (!sampled && sampled.error().code == ErrorCode::kNotFound && !is_ending(options_.pid)) {
    sampled.error().code = ErrorCode::kRetry;  // It runs another program now (execve).
  }
  facts.memory = MIGRATE_TRY(std::move(sampled));
  facts.content_bytes = source_.content_bytes();
  facts.threads = static_cast<std::uint32_t>(only_process(source_.draft()).threads_size());
  const Speeds past = past_moves().read();
  facts.speeds_from = past.knows_pages() ? "moves" : link ? "probe" : "usual";
  facts.speeds = past.completed(link.value_or(LinkSpeed()),
                                static_cast<double>(options_.request.push.bytes_per_second.value_or(
                                    options_.context->push_bytes_per_second)));
  facts.rounds = options_.request.rounds;
  if (const Refusals against = source_.against_rounds(); !against.empty()) {
    facts.no_rounds = against.front().code() + ": " + against.front().reason();
  }
  choice_ = choose_mode(std::move(facts), options_.request.wish.best);
  return {};
}

// Returns the process's clocks, minus this host's.
Result<ClockOffsets> SourceMove::offer() {
  const std::int64_t start = now_us();
  event("offer", start);
  const ClockOffsets offsets = MIGRATE_TRY(process_clocks());
  if (source_.travel().must_ask()) {
    MIGRATE_TRY(ask_for_files(offsets));
  }
  auto offered = offer_draft(offsets);
  // What is mapped shared it tells of first.
  constexpr int kMoreOffers = 2;
  for (int more = 0; more < kMoreOffers && !offered && source_.ship(handover_->not_there());
       ++more) {
    handover_ = make_handover(plan_);
    if (source_.travel().must_ask()) {
      MIGRATE_TRY(ask_for_files(offsets));
    }
    offered = offer_draft(offsets);
  }
  MIGRATE_TRY(std::move(offered));
  MIGRATE_TRY(source_.heed_destination(handover_->unkept()));
  report_.end_phase("offer", start);
  return offsets;
}

// Where it runs now it has the locks, too, and only there they can be released.
Result<void> SourceMove::hide() {
  std::vector<std::uint32_t> locked;
  for (const wire::Descriptor& descriptor : only_process(image()).descriptors()) {
    if (image().objects().files(static_cast<int>(descriptor.file())).locks_size() > 0) {
      locked.push_back(descriptor.number());
    }
  }
  return source_.parked().hide(locked);
}

// Its process runs meanwhile, but for the instant in which it is stopped to be watched.
Result<void> SourceMove::copy_ahead() {
  const std::int64_t start = now_us();
  event("rounds", start);
  MIGRATE_TRY(source_.watch_writes());
  options_.context->stops.reach("source.watched");
  auto sent = handover_->copy_ahead(*source_.ahead());
  report_.end_phase("rounds", start, report_.phase_us("watch"));
  if (!sent && sent.error().code == ErrorCode::kNotFound && !is_ending(options_.pid)) {
    sent.error().code = ErrorCode::kRetry;  // It runs another program now (execve).
  }
  return sent;
}

Result<void> SourceMove::freeze_and_run(const ClockOffsets& offsets) {
  auto ran = freeze_and_hand_over(offsets);
  source_.end_freeze();
  if (!ran && !handover_->run_sent() && is_ending(options_.pid)) {
    source_.clear_refusals();
    ran.error().code = ErrorCode::kNotFound;
  }
  return ran;
}

Result<void> SourceMove::freeze_and_hand_over(const ClockOffsets& offsets) {
  MIGRATE_TRY(source_.freeze());
  const std::int64_t image_since_us = now_us();
  MIGRATE_TRY(source_.complete_image(offsets.monotonic_ns));
  MIGRATE_TRY(source_.find_kept());
  auto ran = hand_over(image_since_us);
  if (!ran && !handover_->run_sent()) {
    take_back();
    return ran;
  }
  if (!ran) {  // In doubt.
    report_.note_running();
  }
  report_.note_frozen_since(source_.frozen_since_us());
  return ran;
}

Result<void> SourceMove::hand_over(std::int64_t image_since_us) {
  wire::RelayState relay = hooks_.freeze_relay(source_.image());
  MIGRATE_TRY(source_.take_judgement());  // Before anything of its memory leaves.
  options_.context->stops.reach("source.captured");
  if (source_.ahead() != nullptr) {
    MIGRATE_TRY(handover_->send_kept(*source_.ahead()));
  }
  MIGRATE_TRY(handover_->send_image(source_.serialise_image(), std::move(relay)));
  report_.end_phase("image", image_since_us);
  options_.context->stops.reach("source.image_sent");
  if (const std::int64_t start = now_us(); !source_.content_files().empty()) {
    MIGRATE_TRY(handover_->send_content(source_.image().objects(), source_.content_files()));
    report_.end_phase("memory_files", start);
  }
  return run_there();
}

Result<void> SourceMove::run_there() {
  const std::int64_t start = now_us();
  MIGRATE_TRY(hooks_.on_captured(source_.image()));
  MIGRATE_TRY(handover_->serve());
  // While the destination restores: the rules that the image does not wait for, and the record.
  MIGRATE_TRY(source_.prepare_to_park(handover_->session()));
  const bool eager = plan_.all_before_run;
  if (eager) {
    handover_->push();
  } else {
    MIGRATE_TRY(source_.park());
  }
  event("freeze", source_.frozen_since_us());  // Whoever is told wakes up, which takes a processor.
  MIGRATE_TRY(handover_->await_restored());
  report_.end_phase("restore", start, report_.phase_us("park"));
  options_.context->stops.reach("source.restored");
  if (eager) {  // Not before: while all its pages travel, it is frozen for long.
    MIGRATE_TRY(source_.park());
  }
  MIGRATE_TRY(still_wanted());
  return handover_->run(source_.parked().signals());
}

// The destination failed before it was told to run the process.
void SourceMove::take_back() {
  if (source_.is_parked()) {
    handover_->stop_serving();
    source_.unpark();
  }
  hooks_.thaw_relay();
}

ParkedProcess SourceMove::serve_from(ParkedProcess keeper) {
  handover_->follow(keeper.process());
  return source_.replace(std::move(keeper));
}

Original SourceMove::handle() {
  const bool was_done = report_.done();
  handover_->handle();
  if (report_.done() && !was_done) {
    note_past();
  }
  return source_.original();
}

// Of a move that was seen from its beginning.
void SourceMove::note_past() const {
  MoveFigures figures = report_.figures();
  figures.plan = plan_;
  figures.threads = static_cast<std::uint32_t>(only_process(source_.image()).threads_size());
  figures.limited = options_.request.push.bytes_per_second.value_or(
                        options_.context->push_bytes_per_second) > 0 ||
                    options_.request.push.deadline.count() > 0;
  past_moves().note(speeds_of(figures));
}

Result<void> SourceMove::resume_here() {
  handover_->close();
  MIGRATE_TRY(source_.resume());
  hooks_.thaw_relay();
  return {};
}

nlohmann::json SourceMove::progress_event() const {
  return report_.progress_event(handover_->pages().wire_bytes());
}

nlohmann::json SourceMove::result() const {
  nlohmann::json object = {{"id", to_hex(session())},
                           {"process", to_hex(options_.process)},
                           {"pid", options_.pid},
                           {"mode", plan_.word},
                           {"transport", handover_->pages().transport()},
                           {"destination", options_.destination.to_string()}};
  report_.add_to(object, handover_->pages().wire_bytes());
  if (choice_) {
    object["choice"] = to_json(*choice_);
  }
  if (choice_ && report_.done()) {
    const MoveFigures figures = report_.figures();
    object["choice"]["to_prediction"] = to_prediction(choice_->best(), figures.freeze_us,
                                                      figures.wire_bytes, figures.independence_us);
  }
  if (losses()) {
    object["losses"] = to_json(*losses());
  }
  if (travels() && travels()->shipped_bytes > 0) {
    object["file_bytes"] = travels()->shipped_bytes;
    object["file_bytes_sent"] = handover_->pages().file_pages() * kPageBytes;
  }
  if (const std::vector<Loss> noted = notes(); !noted.empty()) {
    object["notes"] = to_json(noted);
  }
  return object;
}

}  // namespace migrate
