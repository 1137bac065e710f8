#include "libmigrate/move/source_move.h"

#include <signal.h>

#include <algorithm>
#include <cerrno>
#include <thread>
#include <utility>

#include "base/assistant.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/realtime_scope.h"
#include "libmigrate/capture/capture.h"
#include "libmigrate/capture/contents.h"
#include "libmigrate/image/refusal.h"
#include "libmigrate/proc/proc_text.h"
#include "libmigrate/rules/host_facts.h"
#include "libmigrate/trace/tracee.h"
#include "transport/proof.h"

namespace migrate {
namespace {

constexpr int kConnectTimeoutMs = 5000;
constexpr int kReplyTimeoutMs = 30000;
constexpr int kRestoreTimeoutMs = 20000;
constexpr int kEagerTimeoutMs = 3600 * 1000;
constexpr int kRunningTimeoutMs = 5000;
constexpr auto kFirstPages = std::chrono::milliseconds(1);
constexpr auto kRetryPause = std::chrono::milliseconds(20);
// A process that changes (threads, mappings, its program) between the inspection and the freeze is
// tried again for so long, asked for or not.
constexpr std::int64_t kChangesUs = 2'000'000;

/// What a process holds of memory that must be moved; 0 if the kernel does not tell.
std::uint64_t memory_bytes(pid_t pid) {
  const std::string status = read_file("/proc/" + std::to_string(pid) + "/status").value_or("");
  std::uint64_t kibibytes = 0;
  for (const char* field : {"RssAnon:", "RssShmem:", "VmSwap:"}) {
    kibibytes += number_field(status, field);
  }
  return kibibytes * kKibibyte;
}

std::vector<pid_t> ids_of(const std::vector<FrozenThread>& threads) {
  std::vector<pid_t> ids;
  ids.reserve(threads.size());
  for (const FrozenThread& thread : threads) {
    ids.push_back(thread.host_id);
  }
  return ids;
}

}  // namespace

nlohmann::json to_json(const std::vector<wire::Refusal>& refusals) {
  nlohmann::json list = nlohmann::json::array();
  for (const wire::Refusal& refusal : refusals) {
    list.push_back({{"code", refusal.code()},
                    {"object", refusal.object()},
                    {"reason", refusal.reason()},
                    {"remedy", refusal.remedy()}});
  }
  return list;
}

SourceMove::SourceMove(SourceMoveOptions options, Hooks hooks, EventSink& sink)
    : options_(std::move(options)),
      hooks_(std::move(hooks)),
      sink_(sink),
      report_(options_.push.deadline),
      rdma_(options_.transport, *options_.context) {}

SourceMove::~SourceMove() = default;

Result<std::unique_ptr<Channel>> SourceMove::connect(Purpose purpose) {
  const Preamble preamble{.purpose = purpose, .session = session_};
  auto peer = MIGRATE_TRY(
      options_.context->trust.connect(options_.destination, preamble, kConnectTimeoutMs));
  if (purpose != Purpose::kOffer) {
    MIGRATE_TRY(give_proof(*peer.channel, options_.token, preamble, kConnectTimeoutMs));
  }
  return std::move(peer.channel);
}

void SourceMove::event(const char* phase, std::int64_t start_us) {
  sink_.send({{"event", "phase"}, {"phase", phase}, {"at_us", start_us - report_.begun_us()}});
}

MoveOutcome SourceMove::attempt_for(double seconds) {
  const std::int64_t start_us = now_us();
  const auto refused_until_us = start_us + static_cast<std::int64_t>(seconds * 1e6);
  const std::int64_t changed_until_us = std::max(refused_until_us, start_us + kChangesUs);
  for (;;) {
    const MoveOutcome outcome = attempt();
    const bool refused = outcome == MoveOutcome::kRefused && all_transient(refusals_);
    const bool busy = outcome == MoveOutcome::kFailed && error_.code == ErrorCode::kBusy;
    const bool failed = outcome == MoveOutcome::kFailed && error_.code == ErrorCode::kRetry;
    const std::int64_t until_us = changes_ || busy ? changed_until_us : refused_until_us;
    if ((!refused && !failed && !busy) || now_us() >= until_us) {
      return outcome;
    }
    std::this_thread::sleep_for(kRetryPause);
  }
}

MoveOutcome SourceMove::attempt() {
  refusals_.clear();
  changes_ = false;
  report_.begin();
  auto moved = [&]() -> Result<void> {
    MIGRATE_TRY(inspect());
    MIGRATE_TRY(offer());
    MIGRATE_TRY(connect_data());
    MIGRATE_TRY(hooks_.on_outgoing(outgoing()));
    auto ran = freeze_and_run();
    if (!ran && !run_sent_ && has_ended(options_.pid)) {
      refusals_.clear();  // They are of what was left of it.
      ran.error().code = ErrorCode::kNotFound;
    }
    changes_ = !ran && ran.error().code == ErrorCode::kRetry;
    return ran;
  }();
  if (moved) {
    // Its first pages come before what is left to do here.
    stand_in_.reset();
    std::this_thread::sleep_for(kFirstPages);
    return MoveOutcome::kCommitted;
  }
  error_ = std::move(moved).error();
  if (run_sent_) {
    if (error_.code == ErrorCode::kRefused) {
      take_fate(Fate::kNeverRan);  // It said so.
    } else {
      lose_control(error_);
    }
    return MoveOutcome::kInDoubt;
  }
  feed_.reset();
  urgent_.reset();
  bulk_.reset();
  control_.reset();
  return refusals_.empty() ? MoveOutcome::kFailed : MoveOutcome::kRefused;
}

Result<std::vector<wire::Refusal>> SourceMove::check() {
  auto checked = inspect();
  for (const std::int64_t until_us = now_us() + kChangesUs;
       !checked && checked.error().code == ErrorCode::kRetry && now_us() < until_us;) {
    std::this_thread::sleep_for(kRetryPause);
    refusals_.clear();
    checked = inspect();
  }
  if (checked && !options_.destination.host.empty()) {
    checked = offer();
    control_.reset();
  }
  if (!checked && refusals_.empty()) {
    return fail(std::move(checked).error());
  }
  return refusals_;
}

Result<void> SourceMove::inspect() {
  event("inspect", report_.begun_us());
  auto inspected = [&]() -> Result<Inspection> {
    if (!stand_in_) {
      stand_in_ = MIGRATE_TRY(StandIn::create(options_.asker));
    }
    inspector_ = MIGRATE_TRY(ProcessInspector::create(options_.pid, options_.known));
    return inspector_->inspect_running();
  }();
  if (!inspected && inspected.error().sys_errno == ESRCH && ::kill(options_.pid, 0) == 0) {
    inspected.error().code = ErrorCode::kRetry;  // Between two programs (execve).
  }
  changes_ = !inspected && inspected.error().code == ErrorCode::kRetry;
  if (!inspected &&
      (inspected.error().sys_errno == EACCES || inspected.error().sys_errno == EPERM)) {
    refusals_.push_back(make_refusal("NOT_READABLE", "process " + std::to_string(options_.pid),
                                     inspected.error().message()));
  }
  Inspection inspection = MIGRATE_TRY(std::move(inspected));
  draft_ = std::move(inspection.image);
  refusals_ = std::move(inspection.refusals);
  report_.end_phase("inspect", report_.begun_us());
  MIGRATE_TRY(judge_running());
  if (!refusals_.empty()) {
    return fail(make_error(ErrorCode::kRefused, "move", "process " + std::to_string(options_.pid)));
  }
  return {};
}

// What an inspection finds is told to nobody who could not have found it himself: neither to the
// client nor to the destination. It decides nothing about the move, which the process that will
// be frozen does.
Result<void> SourceMove::judge_running() {
  std::vector<pid_t> threads{options_.pid};
  for (const auto& [thread, id] : inspector_->threads()) {
    if (thread != options_.pid) {
      threads.push_back(thread);
    }
  }
  MIGRATE_TRY(stand_in_->ask_attach(threads));
  return take_judgement();
}

// The kernel's word about the threads that it was asked about.
Result<void> SourceMove::take_judgement() {
  auto judged = stand_in_->answer();
  if (!judged && judged.error().code == ErrorCode::kRefused) {
    log::warn("{}", judged.error().message());
    refusals_ = {make_refusal("NOT_PERMITTED", "process " + std::to_string(options_.pid),
                              options_.asker.name())};
  }
  return judged;
}

Result<void> SourceMove::offer() {
  const std::int64_t start = now_us();
  event("offer", start);
  session_ = MIGRATE_TRY(random_session_id());
  control_ = std::make_unique<ControlChannel>(MIGRATE_TRY(connect(Purpose::kOffer)),
                                              options_.destination.to_string());
  control_->set_longest_message(kMaxReplyBytes);
  wire::ControlMessage message;
  wire::Offer& offer = *message.mutable_offer();
  offer.set_process(options_.process.data(), options_.process.size());
  offer.set_mode(std::string(options_.plan.word));
  *offer.mutable_draft() = draft_;
  *offer.mutable_source() = MIGRATE_TRY(host_facts());
  offer.set_home(options_.home.to_string());
  offer.set_source_address(options_.context->own_address.to_string());
  offer.set_command(options_.command);
  offer.set_user(draft_.threads(0).credentials().uid_real());
  offer.set_token(options_.token);
  offer.set_memory_bytes(memory_bytes(options_.pid));
  offer.set_wants_rdma(rdma_.wanted() && !options_.plan.only_asks);
  ClockOffsets offsets = MIGRATE_TRY(clock_offsets(options_.pid));
  offsets.monotonic_ns -= options_.host_clocks.monotonic_ns;
  offsets.boottime_ns -= options_.host_clocks.boottime_ns;
  offer.set_monotonic_offset_ns(offsets.monotonic_ns);
  clock_offset_ns_ = offsets.monotonic_ns;
  offer.set_boottime_offset_ns(offsets.boottime_ns);
  MIGRATE_TRY(control_->send(message));
  const auto reply = MIGRATE_TRY(await_reply(offsets));
  report_.end_phase("offer", start);
  incarnation_ = reply.offer_reply().incarnation();
  refusals_.assign(reply.offer_reply().refusals().begin(), reply.offer_reply().refusals().end());
  if (!refusals_.empty()) {
    return fail(make_error(ErrorCode::kRefused, "move", "process " + std::to_string(options_.pid)));
  }
  return options_.plan.only_asks ? Result<void>() : rdma_.settle(session_, reply.offer_reply());
}

// Tells the time as often as the destination asks, until it answers the offer.
Result<wire::ControlMessage> SourceMove::await_reply(const ClockOffsets& offsets) {
  for (;;) {
    wire::ControlMessage message = MIGRATE_TRY(control_->receive(kFreezeSpinUs, kReplyTimeoutMs));
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

Result<void> SourceMove::connect_data() {
  urgent_ = MIGRATE_TRY(connect_pages(Purpose::kUrgent));
  bulk_ = MIGRATE_TRY(connect_pages(Purpose::kBulk));
  // Handing them over takes two daemons' children: not while the process is frozen.
  MIGRATE_TRY(control_->expect(wire::ControlMessage::kConnected, 0, kReplyTimeoutMs));
  options_.context->stops.reach("source.offered");
  return {};
}

Result<std::shared_ptr<Channel>> SourceMove::connect_pages(Purpose purpose) {
  std::shared_ptr<Channel> channel = MIGRATE_TRY(rdma_.connect(purpose));
  page_transport_ = channel ? "rdma" : "tcp";
  if (!channel) {
    channel = MIGRATE_TRY(connect(purpose));
  }
  return channel;
}

// In the vDSO of the process, by which scripts begin to run in it.
Result<std::uint64_t> SourceMove::find_system_call() {
  for (const wire::Mapping& mapping : draft_.mappings()) {
    if (mapping.kind() == wire::Mapping::VDSO) {
      auto found = find_system_call_in(options_.pid, mapping.start(), mapping.end());
      if (!found && found.error().sys_errno == EFAULT) {
        return fail(make_error(ErrorCode::kRetry, "freeze",
                               "process " + std::to_string(options_.pid),
                               "it runs another program now (execve): inspect it anew"));
      }
      return found;
    }
  }
  refusals_.push_back(make_refusal("VDSO", "process " + std::to_string(options_.pid)));
  return fail(make_error(ErrorCode::kRefused, "find the vDSO of the process"));
}

Result<void> SourceMove::freeze_and_run() {
  const std::uint64_t system_call = MIGRATE_TRY(find_system_call());
  const auto assistant = MIGRATE_TRY(Assistant::create());
  const RealtimeScope realtime;
  const std::int64_t start = now_us();
  auto stopped = FrozenProcess::freeze(options_.pid, system_call, inspector_->threads());
  if (!stopped && stopped.error().code == ErrorCode::kRefused) {
    refusals_.push_back(make_refusal("STOPPED", "process " + std::to_string(options_.pid)));
  }
  FrozenProcess frozen = MIGRATE_TRY(std::move(stopped));
  const std::vector<WaitRecord> waits = waits_that_go_on(frozen, options_.waits);
  report_.end_phase("stop", start);
  MIGRATE_TRY(stand_in_->ask_attach(ids_of(frozen.threads())));
  options_.context->stops.reach("source.frozen");
  check_scripts_can_run(frozen, refusals_);
  if (!refusals_.empty()) {
    return fail(make_error(ErrorCode::kRefused, "move", "process " + std::to_string(options_.pid)));
  }
  Verdict unseen;  // before it was frozen
  const auto capture = [&](wire::Image& facts) -> Result<void> {
    if (auto opened = frozen.open_area(ParkedProcess::record_bytes(draft_)); !opened) {
      if (opened.error().sys_errno == EACCES) {
        refusals_.push_back(make_refusal("UNKNOWN_ATTRIBUTE",
                                         "process " + std::to_string(options_.pid),
                                         "it may not have memory that is both written and executed "
                                         "(PR_SET_MDWE), which moving it needs"));
        opened.error().code = ErrorCode::kRefused;
      }
      return opened;
    }
    hooks_.on_area(frozen.area().address);
    MIGRATE_TRY(capture_state(frozen, waits, facts, unseen));
    report_.end_phase("capture", start);
    return {};
  };
  Inspection inspection = MIGRATE_TRY(inspector_->inspect_frozen(draft_, *assistant, capture));
  report_.end_phase("reinspect", start);
  image_ = std::move(inspection.image);
  refusals_ = std::move(inspection.refusals);
  refusals_.insert(refusals_.end(), unseen.begin(), unseen.end());
  if (!refusals_.empty()) {
    return fail(make_error(ErrorCode::kRefused, "move", "process " + std::to_string(options_.pid)));
  }
  const std::int64_t image_start = now_us();
  image_.set_clock_offset_ns(clock_offset_ns_);
  MIGRATE_TRY(capture_contents(options_.pid, image_));
  MIGRATE_TRY(capture_starter_pages(frozen, image_));
  wire::ControlMessage message;
  *message.mutable_final()->mutable_relay() = hooks_.freeze_relay(image_);
  MIGRATE_TRY(take_judgement());  // Before anything of its memory leaves.
  options_.context->stops.reach("source.captured");
  message.mutable_final()->mutable_image()->Swap(&image_);
  auto done = control_->send(message);
  message.mutable_final()->mutable_image()->Swap(&image_);
  report_.end_phase("image", image_start);
  options_.context->stops.reach("source.image_sent");
  if (done) {
    done = run_there(frozen, start);
  }
  if (!done && !run_sent_) {
    unpark();
    hooks_.thaw_relay();
    return done;
  }
  if (!done) {  // In doubt.
    report_.note_running();
  }
  report_.note_frozen_since(start);
  return done;
}

Result<void> SourceMove::run_there(FrozenProcess& frozen, std::int64_t frozen_since_us) {
  const std::int64_t start = now_us();
  MIGRATE_TRY(hooks_.on_captured(image_));
  feed_ = MIGRATE_TRY(make_feed());
  feed_->serve(std::exchange(urgent_, nullptr));
  // While the destination restores: the rules that the image does not wait for, and the record.
  refusals_ = inspector_->check_frozen();
  if (!refusals_.empty()) {
    return fail(make_error(ErrorCode::kRefused, "move", "process " + std::to_string(options_.pid)));
  }
  MIGRATE_TRY(ParkedProcess::write_record(frozen, image_, session_, options_.process));
  const bool eager = options_.plan.all_before_run;
  if (eager) {
    start_push(std::chrono::microseconds(0));
  } else {
    MIGRATE_TRY(park(frozen));
  }
  event("freeze", frozen_since_us);  // Whoever is told wakes up, which takes a processor.
  MIGRATE_TRY(control_->expect(wire::ControlMessage::kRestored, 0,
                               eager ? kEagerTimeoutMs : kRestoreTimeoutMs));
  report_.end_phase("restore", start, report_.phase_us("park"));
  options_.context->stops.reach("source.restored");
  if (eager) {  // Not before: while all its pages travel, it is frozen for long.
    MIGRATE_TRY(park(frozen));
  }
  return send_run();
}

Result<void> SourceMove::park(FrozenProcess& frozen) {
  const std::int64_t start = now_us();
  parked_.emplace(MIGRATE_TRY(ParkedProcess::park(frozen, image_)));
  report_.end_phase("park", start);
  options_.context->stops.reach("source.parked");
  return {};
}

// The destination failed before it was told to run the process.
void SourceMove::unpark() {
  if (!parked_) {
    return;
  }
  feed_.reset();
  if (auto back = parked_->unpark(image_); !back) {
    log::error("process {} could not be resumed: {}", options_.pid, back.error().message());
  }
  parked_.reset();
}

Result<std::unique_ptr<PageFeed>> SourceMove::make_feed() const {
  return PageFeed::create(parked_ ? parked_->process() : options_.pid, image_,
                          {.push = options_.plan.push,
                           .spin_us = options_.context->spin_us,
                           .push_bytes_per_second = options_.push.bytes_per_second.value_or(0),
                           .push_deadline = options_.push.deadline});
}

Result<void> SourceMove::send_run() {
  const std::int64_t start = now_us();
  wire::ControlMessage run;
  run.mutable_run();
  for (const std::string& signal : parked_->signals()) {
    run.mutable_run()->add_signals(signal);
  }
  run_sent_ = true;
  linked_ = true;
  last_heard_us_ = start;
  MIGRATE_TRY(control_->send(run));
  options_.context->stops.reach("source.run_sent");
  MIGRATE_TRY(control_->expect(wire::ControlMessage::kRunning, 0, kRunningTimeoutMs));
  report_.end_phase("run", start);
  options_.context->stops.reach("source.running");
  take_fate(Fate::kRuns);
  return {};
}

void SourceMove::start_push(std::chrono::microseconds pause) {
  if (bulk_ && feed_) {
    feed_->push(std::exchange(bulk_, nullptr), pause);
  }
}

std::uint64_t SourceMove::wire_bytes() const {
  return feed_ ? feed_->wire_bytes() : 0;
}

nlohmann::json SourceMove::progress_event() const {
  return report_.progress_event(wire_bytes());
}

nlohmann::json SourceMove::result() const {
  nlohmann::json object = {
      {"id", to_hex(session_)},       {"process", to_hex(options_.process)},
      {"pid", options_.pid},          {"mode", options_.plan.word},
      {"transport", page_transport_}, {"destination", options_.destination.to_string()}};
  report_.add_to(object, wire_bytes());
  return object;
}

}  // namespace migrate
