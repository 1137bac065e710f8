#include "libmigrate/guest/arrival.h"

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

#include "base/log.h"
#include "base/realtime_scope.h"
#include "libmigrate/guest/awaits.h"
#include "libmigrate/guest/guest_seat.h"
#include "libmigrate/guest/guest_setup.h"
#include "libmigrate/guest/offer_refusals.h"
#include "libmigrate/image/image_form.h"
#include "libmigrate/image/only_process.h"
#include "libmigrate/links/home_network.h"
#include "libmigrate/move/link_probe.h"
#include "libmigrate/move/page_transport.h"
#include "libmigrate/rules/bounding_set.h"
#include "libmigrate/rules/host_facts.h"
#include "libmigrate/rules/host_memory.h"

namespace migrate {
namespace {

constexpr int kOfferTimeoutMs = 10000;
// The process waits for this processor, if there is no other; to yield is no help where the kernel
// weighs this session against the process's (autogroup, control groups).
constexpr std::chrono::microseconds kFirstSteps{200};

// What may come ahead of the process: no more than its offer was judged by.
std::uint64_t staged_pages_of(const wire::Offer& offer) {
  return offer.memory_bytes() / kPageBytes;
}

}  // namespace

Arrival::Arrival(const WorkerContext& context, PeerTrust::Peer source, const SessionId& session,
                 std::function<void(int connection)> become_worker, const GuestWorld& world)
    : context_(context),
      session_(session),
      source_(std::move(source.identity)),
      become_worker_(std::move(become_worker)),
      world_(world),
      control_(std::make_unique<ControlChannel>(std::move(source.channel), source_.to_string())) {}

std::optional<Arrival::Arrived> Arrival::take_in() {
  const auto taken = [this]() -> Result<bool> {
    if (!MIGRATE_TRY(receive_offer())) {
      return false;
    }
    MIGRATE_TRY(make_guest());
    MIGRATE_TRY(prepare());
    MIGRATE_TRY(connect());
    std::optional<RealtimeScope> realtime;
    if (!plan_.rounds) {
      realtime.emplace();  // Before: the source that is told may take the processor.
    }
    wire::ControlMessage connected;
    connected.mutable_connected();
    MIGRATE_TRY(control_->send(connected));
    wire::Final final = MIGRATE_TRY(receive_final());
    if (plan_.rounds) {
      realtime.emplace();
    }
    MIGRATE_TRY(restore(std::move(final)));
    AwaitRun awaits(*control_, *pages_, early_, record().noted().command(), world_.clock);
    run_phase(*arrived_.mailbox, awaits);
    const wire::Run run = MIGRATE_TRY(awaits.outcome());
    MIGRATE_TRY(run_process());
    realtime.reset();
    std::this_thread::sleep_for(kFirstSteps);
    settle_in(run);
    return true;
  }();
  if (!taken) {
    log::warn("session {}: {}", to_hex(session_), taken.error().message());
    give_up(taken.error());
  }
  return taken && *taken ? std::optional(std::move(arrived_)) : std::nullopt;
}

// True: from here on this process is a worker, which takes it. False: refused, or only asked.
Result<bool> Arrival::receive_offer() {
  constexpr std::size_t kMaxOfferBytes = std::size_t{32} << 20U;
  constexpr std::size_t kMaxImageBytes = std::size_t{512} << 20U;
  control_->set_longest_message(kMaxOfferBytes);
  auto message = MIGRATE_TRY(control_->expect(wire::ControlMessage::kOffer, 0, kOfferTimeoutMs));
  offer_ = std::move(*message.mutable_offer());
  context_.stops.reach("destination.offered");
  plan_ = MIGRATE_TRY(parse_offered_mode(offer_.mode()));
  const bool only_asks = plan_.only_asks;
  if (offer_.process().size() != SessionId().size() || (offer_.token().empty() && !only_asks)) {
    return fail(make_error(ErrorCode::kCorrupt, "read the id of the process offered"));
  }
  // Who could have it fail would have his process in our network.
  if (!is_sound(offer_.network())) {
    return fail(make_error(ErrorCode::kCorrupt, "read the network of", "the home of a process"));
  }
  MIGRATE_TRY(check_form(offer_.draft(), ImageStage::kDraft));
  own_facts_ = MIGRATE_TRY(host_facts());
  const auto refusals = MIGRATE_TRY(judge());
  if (!refusals.empty() || only_asks) {
    remove_groups(groups_.made());
    MIGRATE_TRY(answer(refusals));
    return false;
  }
  trusted_ = context_.policy.allows(source_, 0);
  become_worker_(control_->channel().poll_fd());
  control_->set_longest_message(
      std::min<std::size_t>(kMaxImageBytes, MIGRATE_TRY(available_memory_bytes()) / 4));
  return true;
}

// Limits that its groups cannot have here are found by making the groups.
Result<std::vector<wire::Refusal>> Arrival::judge() {
  // Who was its host once knows its id, and could have others take another process for it.
  if (!context_.policy.allows(source_, 0) && runs_here(context_, offer_)) {
    return fail(make_error(ErrorCode::kRefused, "take in a process", "the one with the id offered",
                           "it runs here already"));
  }
  auto refusals = MIGRATE_TRY(judge_offer(context_, source_, offer_, own_facts_));
  if (!refusals.empty()) {
    return refusals;
  }
  groups_ = groups_for_offer(context_, source_, offer_);
  return check_groups(context_, offer_, groups_);
}

void Arrival::tell_unkept(wire::OfferReply& reply) const {
  wire::Unkept& unkept = *reply.mutable_unkept();
  unkept.mutable_limits()->Assign(groups_.lost().begin(), groups_.lost().end());
  unkept.set_login(!keeps_login(offer_, context_.policy.allows(source_, 0)));
  unkept.set_bounding_set(bounding_sets_of(only_process(offer_.draft())) & ~own_bounding_set());
}

Result<void> Arrival::answer(const std::vector<wire::Refusal>& refusals) {
  wire::ControlMessage message;
  wire::OfferReply& reply = *message.mutable_offer_reply();
  reply.mutable_refusals()->Assign(refusals.begin(), refusals.end());
  if (!refusals.empty()) {
    tell_missing_files(context_, source_, offer_, own_facts_, reply);
  }
  tell_unkept(reply);
  reply.set_answers_probes(true);
  MIGRATE_TRY(control_->send(message));
  answer_probes(*control_);  // The peer closes first, so that no reset overtakes the answer.
  return {};
}

Result<void> Arrival::make_guest() {
  wire::CellSession noted;
  noted.set_process(offer_.process());
  const SessionId process = process_of(noted);
  arrived_.mailbox.emplace(
      MIGRATE_TRY(Mailbox::create(context_.state_directory, to_hex(session_))));
  ProcessRow row =
      MIGRATE_TRY(ProcessRow::open(context_.state_directory, to_hex(process), ProcessRole::kGuest));
  arrived_.host_clocks = MIGRATE_TRY(clock_offsets(0));
  SessionFile file = MIGRATE_TRY(
      SessionFile::create(context_.state_directory, cell_session_name(to_hex(session_))));
  arrived_.guest = std::make_unique<Guest>(
      context_, session_, process, source_,
      GuestRecord(std::move(file), std::move(row), session_, std::move(noted)), world_.clock);
  arrived_.guest->set_home(make_home_link(*arrived_.guest, world_));
  return {};
}

// The source's connections for pages, once it knows that all is prepared.
Result<void> Arrival::connect() {
  record().enter(GuestPhase::kPrepared);
  context_.stops.reach("destination.prepared");
  wire::ControlMessage ready;
  wire::OfferReply& reply = *ready.mutable_offer_reply();
  tell_unkept(reply);
  reply.set_staged_pages(plan_.rounds ? staged_pages_of(offer_) : 0);
  reply.set_incarnation(MIGRATE_TRY(SessionFile::incarnation(context_.state_directory)));
  if (offer_.page_transports_size() > 0) {
    pages_->set_listener(listen_for_pages(context_, session_, offer_, reply));
  }
  MIGRATE_TRY(control_->send(ready));
  AwaitConnections awaits(*control_, *pages_, early_, world_.clock);
  run_phase(*arrived_.mailbox, awaits);
  MIGRATE_TRY(awaits.outcome());
  if (plan_.rounds) {  // Before the source is told, who sends at once.
    MIGRATE_TRY(pages_->stage(staged_pages_of(offer_),
                              [this] { context_.stops.reach("destination.round"); }));
  }
  context_.stops.reach("destination.connected");
  return {};
}

Result<wire::Final> Arrival::receive_final() {
  if (!plan_.rounds) {
    auto message = MIGRATE_TRY(control_->expect(wire::ControlMessage::kFinal, 0, kFinalTimeoutMs));
    return std::move(*message.mutable_final());
  }
  AwaitFinal awaits(*control_, *pages_, early_, world_.clock);
  run_phase(*arrived_.mailbox, awaits);
  return awaits.outcome();
}

// Until the source has been told that it runs.
Result<void> Arrival::run_process() {
  record().enter(GuestPhase::kTold);
  context_.stops.reach("destination.run");
  record().enter(GuestPhase::kMarked);
  MIGRATE_TRY(cell_->keep({.kind = Kept::Kind::kUserfault, .number = 1}, userfault_copy_.get()));
  record().enter(GuestPhase::kKept);
  context_.stops.reach("destination.kept");
  MIGRATE_TRY(restorer_->release());
  record().enter(GuestPhase::kRan);
  MIGRATE_TRY(restorer_->run());
  context_.stops.reach("destination.released");
  userfault_copy_.reset();
  wire::ControlMessage running;
  running.mutable_running()->set_pid(static_cast<std::uint32_t>(cell_->seed()));
  if (auto sent = control_->send(running); !sent) {
    log::warn("session {}: {}", to_hex(session_), sent.error().message());
  }
  arrived_.guest->source().attach(std::move(control_));
  context_.stops.reach("destination.running");
  return {};
}

void Arrival::settle_in(const wire::Run& run) {
  Guest& guest = *arrived_.guest;
  for (const std::string& signal : run.signals()) {
    guest.deliver(std::as_bytes(std::span(signal)));
  }
  guest.home().attach();
  guest.home().relay()->activate();
  guest.home().relay()->report_location(context_.own_address.to_string(), to_hex(session_));
  record().enter(GuestPhase::kServing);
  arrived_.early = early_.take();
}

// Says that the process never ran here only when nothing of it is left that could.
void Arrival::give_up(const Error& error) {
  if (arrived_.guest) {
    record().row().remove();
    const bool over = cell_ == nullptr || cell_->end_and_wait();
    const bool may_have_run = has_run(record().phase());
    if (!over || may_have_run) {
      log::error("session {}: the process may have run here, and is lost", to_hex(session_));
      record().enter(may_have_run ? GuestPhase::kOver : GuestPhase::kNeverRan);
      arrived_.guest->close();
      return;
    }
    record().file().remove();
  }
  remove_groups(groups_.made());
  if (control_) {
    wire::ControlMessage message;
    message.mutable_failed()->set_reason(error.message());
    static_cast<void>(control_->send(message));
  }
}

}  // namespace migrate
