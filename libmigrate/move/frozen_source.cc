#include "libmigrate/move/frozen_source.h"

#include <fmt/core.h>
#include <signal.h>

#include <algorithm>
#include <cerrno>
#include <thread>
#include <utility>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "libmigrate/advisor/memory_sample.h"
#include "libmigrate/capture/capture.h"
#include "libmigrate/capture/contents.h"
#include "libmigrate/image/address_space.h"
#include "libmigrate/image/only_process.h"
#include "libmigrate/image/refusal.h"
#include "libmigrate/move/link_refusals.h"
#include "libmigrate/park/room.h"
#include "libmigrate/proc/proc_text.h"
#include "libmigrate/rules/bounding_set.h"
#include "libmigrate/rules/host_facts.h"

namespace migrate {
namespace {

// More than that, and people notice that the process stood still.
constexpr std::uint64_t kNotedContentBytes = std::uint64_t{64} << 20U;

/// What follows the image.
std::uint64_t content_bytes(const wire::Image& draft) {
  std::uint64_t bytes = 0;
  for (const wire::SharedMemory& memory : draft.objects().shared_memories()) {
    bytes += memory.open_descriptor() ? memory.data_bytes() : 0;
  }
  return bytes;
}

/// What a process holds of memory that must be moved, so far as the kernel tells.
std::uint64_t memory_bytes(pid_t pid, const wire::Image& draft) {
  const std::string status = read_file("/proc/" + std::to_string(pid) + "/status").value_or("");
  const auto bytes = [&status](const char* field) {
    return number_field(status, field) * kKibibyte;
  };
  // Memory files need not be mapped.
  return bytes("RssAnon:") + bytes("VmSwap:") + std::max(bytes("RssShmem:"), content_bytes(draft));
}

std::uint32_t user_of(const wire::Image& image) {
  return only_process(image).threads(0).credentials().uid_real();
}

}  // namespace

FrozenSource::FrozenSource(const SourceMoveOptions& options,
                           std::function<void(std::uint64_t)> on_area, MoveReport& report,
                           std::size_t handovers)
    : options_(options),
      on_area_(std::move(on_area)),
      report_(report),
      travel_(options_),
      waits_(options.waits),
      confirmed_(handovers) {}

FrozenSource::~FrozenSource() = default;

Error FrozenSource::refused() const {
  return make_error(ErrorCode::kRefused, "move", name());
}

Result<void> FrozenSource::inspect(bool in_rounds) {
  const bool was_held = holds_itself(options_.pid);
  auto inspected = [&]() -> Result<Inspection> {
    if (!stand_in_) {
      stand_in_ = MIGRATE_TRY(StandIn::create(options_.request.asker));
    }
    inspector_ = MIGRATE_TRY(ProcessInspector::create(options_.pid, options_.known));
    inspector_->carry_as_memory(travel_.files_as_memory());
    return inspector_->inspect_running();
  }();
  if (!inspected && inspected.error().sys_errno == ESRCH && ::kill(options_.pid, 0) == 0) {
    inspected.error().code = ErrorCode::kRetry;  // Between two programs (execve).
  }
  if (!inspected &&
      (inspected.error().sys_errno == EACCES || inspected.error().sys_errno == EPERM)) {
    refusals_.push_back(make_refusal("NOT_READABLE", name(), inspected.error().message()));
  }
  Inspection inspection = MIGRATE_TRY(std::move(inspected));
  refusals_ = std::move(inspection.refusals);
  if (options_.request.starts) {
    std::erase_if(refusals_, [](const auto& refusal) { return refusal.code() == "STOPPED"; });
  }
  travel_.see(std::move(inspection.image), look_at_program());
  // What it had open for that moment may be among the refusals.
  if (holds_itself(options_.pid) || (was_held && !refusals_.empty())) {
    refusals_.push_back(make_refusal("HELD", name()));
  }
  const Refusals& refused_by_policy = travel_.travels()->refusals;
  refusals_.insert(refusals_.end(), refused_by_policy.begin(), refused_by_policy.end());
  for (wire::Refusal& refusal : check_room_to_park(options_.pid, travel_.draft())) {
    refusals_.push_back(std::move(refusal));
  }
  for (wire::Refusal& refusal : refusals_of_links(options_, travel_.draft())) {
    refusals_.push_back(std::move(refusal));
  }
  losses_there_.clear();
  find_losses(travel_.draft(), false);
  if (in_rounds) {
    for (wire::Refusal& refusal : against_rounds()) {
      refusals_.push_back(std::move(refusal));
    }
  }
  report_.end_phase("inspect", report_.begun_us());
  MIGRATE_TRY(judge_running());
  return refusals_.empty() ? Result<void>() : Result<void>(fail(refused()));
}

bool FrozenSource::learn(const FilesNotThere& not_there) {
  travel_.learn(not_there);
  refusals_ = travel_.travels()->refusals;
  return refusals_.empty();
}

bool FrozenSource::ship(const std::optional<FilesNotThere>& not_there) {
  if (!travel_.ship(not_there)) {
    return false;
  }
  refusals_ = travel_.travels()->refusals;
  if (!refusals_.empty() || !travel_.sends_as_memory()) {
    return refusals_.empty();
  }
  travel_.begin();
  return inspect().has_value();
}

// What the program says now counts, and what is mapped now.
Result<void> FrozenSource::travel_frozen() {
  const auto program =
      wish_ ? Program::open(options_.pid)
            : Result<Program>(fail(make_error(ErrorCode::kNotFound, "find what the program says")));
  travel_.apply_frozen(program ? program->advice() : std::vector<ProgramAdvice>(), image_);
  refusals_ = travel_.travels()->refusals;
  return refusals_.empty() ? Result<void>() : Result<void>(fail(refused()));
}

void FrozenSource::find_losses(const wire::Image& image, bool frozen) {
  losses_ = inspector_->losses(image, frozen);
  losses_->insert(losses_->end(), losses_there_.begin(), losses_there_.end());
  refuse_losses(*losses_);
}

void FrozenSource::refuse_losses(const std::vector<Loss>& losses) {
  if (!options_.request.strict) {
    return;
  }
  for (const Loss& loss : losses) {
    refusals_.push_back(make_refusal("LOSS", fmt::format("{} {}", loss.code, loss.object),
                                     fmt::format("{}", loss.reason)));
  }
}

std::vector<Loss> FrozenSource::notes() const {
  const std::uint64_t bytes = content_bytes();
  if (bytes <= kNotedContentBytes || !refusals_.empty()) {
    return {};
  }
  return {{"LARGE_MEMFD", fmt::format("{} MiB of memory files and deleted files", bytes >> 20U),
           "they are open as files: their content travels while the process stands still, in each "
           "mode",
           "let the program close the descriptors of what it has mapped, if it can"}};
}

// What an inspection finds is told to nobody who could not have found it himself: neither to the
// client nor to the destination. It decides nothing about the move, which the process that will
// be frozen does.
Result<void> FrozenSource::judge_running() {
  std::vector<pid_t> threads{options_.pid};
  for (const auto& [thread, id] : inspector_->threads()) {
    if (thread != options_.pid) {
      threads.push_back(thread);
    }
  }
  MIGRATE_TRY(stand_in_->ask_attach(threads));
  return take_judgement();
}

Result<void> FrozenSource::take_judgement() {
  auto judged = stand_in_->answer();
  if (!judged && judged.error().code == ErrorCode::kRefused) {
    log::warn("{}", judged.error().message());
    refusals_ = {make_refusal("NOT_PERMITTED", name(), options_.request.asker.name())};
    losses_.reset();
    travel_.forget();
  }
  return judged;
}

Result<wire::Offer> FrozenSource::describe(const ClockOffsets& offsets) const {
  wire::Offer offer;
  offer.set_process(options_.process.data(), options_.process.size());
  *offer.mutable_draft() = travel_.draft();
  *offer.mutable_source() = MIGRATE_TRY(host_facts());
  offer.set_home(options_.home.to_string());
  *offer.mutable_network() = network_of_home(options_, travel_.draft());
  offer.set_uses_place_network(options_.request.network == NetworkOf::kPlace);
  offer.set_source_address(options_.context->own_address.to_string());
  offer.set_command(options_.command);
  offer.set_user(only_process(travel_.draft()).threads(0).credentials().uid_real());
  offer.set_token(options_.token);
  *offer.mutable_name() = options_.name;
  const std::uint64_t of_files = travel_.travels() ? travel_.travels()->shipped_bytes : 0;
  offer.set_memory_bytes(memory_bytes(options_.pid, travel_.draft()) + of_files);
  offer.set_monotonic_offset_ns(offsets.monotonic_ns);
  offer.set_boottime_offset_ns(offsets.boottime_ns);
  return offer;
}

Result<void> FrozenSource::heed_destination(const std::optional<wire::Unkept>& said) {
  const wire::ProcessImage& process = only_process(travel_.draft());
  wire::Unkept unkept = said.value_or(wire::Unkept());
  if (!said) {
    unkept.set_login(process.has_login_user());
    unkept.set_bounding_set(bounding_sets_of(process));
    for (const wire::GroupLimit& limit : process.control_groups().limits()) {
      unkept.add_limits(limit.name() + " " + limit.value());
    }
  }
  for (const std::string& limit : unkept.limits()) {
    if (options_.context->groups.keep_limits) {
      refusals_.push_back(make_refusal("GROUP_LIMITS", limit));
    }
    losses_there_.push_back(loss_there("cgroup", limit));
  }
  if (unkept.login() && process.has_login_user()) {
    losses_there_.push_back(
        loss_there("loginuid", fmt::format("login user {}", process.login_user())));
  }
  if (unkept.bounding_set() != 0) {
    losses_there_.push_back(
        loss_there("CapBnd", fmt::format("capabilities {:#x}", unkept.bounding_set())));
  }
  losses_->insert(losses_->end(), losses_there_.begin(), losses_there_.end());
  refuse_losses(losses_there_);
  return refusals_.empty() ? Result<void>() : Result<void>(fail(refused()));
}

// In the vDSO of the process, by which scripts begin to run in it.
Result<std::uint64_t> FrozenSource::find_system_call() {
  for (const wire::Mapping& mapping : only_process(travel_.draft()).mappings()) {
    if (mapping.kind() == wire::Mapping::VDSO) {
      auto found = find_system_call_in(options_.pid, mapping.start(), mapping.end());
      if (!found && found.error().sys_errno == EFAULT) {
        return fail(make_error(ErrorCode::kRetry, "freeze", name(),
                               "it runs another program now (execve): inspect it anew"));
      }
      return found;
    }
  }
  refusals_.push_back(make_refusal("NO_VDSO", name()));
  return fail(make_error(ErrorCode::kRefused, "find the vDSO of the process"));
}

// So that it need not be frozen to find out.
std::vector<ProgramAdvice> FrozenSource::look_at_program() {
  const auto program = Program::open(options_.pid);
  has_hooks_ = program && program->read().value_or(ProgramWish()).hooks != 0;
  return program ? program->advice() : std::vector<ProgramAdvice>();
}

// Here nothing of the process runs, so that what it says now holds until it runs again.
Result<void> FrozenSource::heed_wish() {
  wish_ = wish_of_frozen(options_.pid, only_process(image_));
  if (wish_ && wish_->holds != 0) {
    refusals_.push_back(make_refusal("HELD", name()));
    return fail(refused());
  }
  const bool calls_hooks = options_.request.asked != 0 || options_.request.at_point != 0;
  if (wish_ && wish_->hooks != 0 && !calls_hooks && !options_.request.starts) {
    refusals_.push_back(make_refusal("HOOKS", name()));  // It has got them since it was asked.
    return fail(refused());
  }
  if (options_.request.asked != 0 && (!wish_ || wish_->asked != options_.request.asked)) {
    return fail(make_error(ErrorCode::kNotFound, "move", name(), "it asks for that no more"));
  }
  if (options_.request.at_point != 0 && (!wish_ || wish_->at_point != options_.request.at_point)) {
    return fail(make_error(ErrorCode::kNotFound, "move", name(),
                           "it waits at its point no more; try again"));
  }
  return {};
}

Result<void> FrozenSource::freeze() {
  const std::uint64_t system_call = MIGRATE_TRY(find_system_call());
  make_room_for_image();
  const std::vector<WaitRecord> waits = MIGRATE_TRY(stop(system_call));
  return capture(waits);
}

// The image is serialised while the process is frozen: its memory is touched before, since a page's
// first touch may take longer than what is written there (64 threads: 1 MiB, 0.6 ms of 250 faults).
void FrozenSource::make_room_for_image() {
  constexpr std::uint64_t kMostBytes = 4U << 20U;
  image_bytes_.assign(std::min(ParkedProcess::record_bytes(travel_.draft()), kMostBytes), '\0');
}

// From here on the process stands still: nothing that can be done before is done after.
Result<std::vector<WaitRecord>> FrozenSource::stop(std::uint64_t system_call) {
  auto assistant = MIGRATE_TRY(Assistant::create());
  freeze_.emplace();
  freeze_->assistant = std::move(assistant);
  freeze_->since_us = now_us();
  auto stopped = FrozenProcess::freeze(options_.pid, system_call, inspector_->threads(),
                                       options_.request.starts);
  if (!stopped && stopped.error().code == ErrorCode::kRefused) {
    refusals_.push_back(make_refusal("STOPPED", name()));
  }
  FrozenProcess& frozen = freeze_->process.emplace(MIGRATE_TRY(std::move(stopped)));
  std::vector<WaitRecord> waits = waits_that_go_on(frozen, waits_);
  report_.end_phase("stop", freeze_->since_us);
  MIGRATE_TRY(stand_in_->ask_attach(frozen.host_ids()));
  options_.context->stops.reach("source.frozen");
  check_scripts_can_run(frozen, refusals_);
  if (!refusals_.empty()) {
    return fail(refused());
  }
  return waits;
}

Result<void> FrozenSource::open_area(FrozenProcess& frozen, std::uint64_t record_bytes) {
  if (auto opened = frozen.open_area(record_bytes); !opened) {
    if (opened.error().sys_errno == EACCES) {
      refusals_.push_back(make_refusal("UNKNOWN_ATTRIBUTE", name(),
                                       "it may not have memory that is both written and executed "
                                       "(PR_SET_MDWE), which moving it needs"));
      opened.error().code = ErrorCode::kRefused;
    } else if (opened.error().sys_errno == EAGAIN) {
      refusals_.push_back(make_refusal("RLIMIT_REACHED", "RLIMIT_MEMLOCK",
                                       "what it maps from now on is locked (mlockall), and the "
                                       "memory that moving it needs is more than it may lock"));
      opened.error().code = ErrorCode::kRefused;
    }
    return opened;
  }
  return {};
}

Result<void> FrozenSource::capture(const std::vector<WaitRecord>& waits) {
  Refusals unseen;  // before it was frozen
  const auto capture_meanwhile = [&](wire::ProcessImage& facts) -> Result<void> {
    MIGRATE_TRY(open_area(*freeze_->process, ParkedProcess::record_bytes(travel_.draft())));
    on_area_(freeze_->process->area().address);
    MIGRATE_TRY(capture_state(*freeze_->process, waits, facts, unseen));
    report_.end_phase("capture", freeze_->since_us);
    return {};
  };
  Inspection inspection = MIGRATE_TRY(
      inspector_->inspect_frozen(travel_.seen(), *freeze_->assistant, capture_meanwhile));
  report_.end_phase("reinspect", freeze_->since_us);
  image_ = std::move(inspection.image);
  refusals_ = std::move(inspection.refusals);
  refusals_.insert(refusals_.end(), unseen.begin(), unseen.end());
  const Refusals denied = refusals_of_links(options_, image_);
  refusals_.insert(refusals_.end(), denied.begin(), denied.end());
  if (user_of(image_) != user_of(travel_.draft())) {  // In whose name the destination has prepared.
    return fail(make_error(ErrorCode::kRetry, "freeze", name(), "it has become another user's"));
  }
  if (!refusals_.empty()) {
    return fail(refused());
  }
  MIGRATE_TRY(heed_wish());
  return travel_frozen();
}

std::uint64_t FrozenSource::content_bytes() const {
  return migrate::content_bytes(travel_.draft());
}

// The kernel judges once more, so that what is read is of the program that it judged: a descriptor
// stays with that.
Result<MemoryFacts> FrozenSource::sample(std::chrono::microseconds time,
                                         const std::function<Result<void>()>& still_wanted) {
  constexpr std::chrono::microseconds kLook{50'000};
  const auto reader = MIGRATE_TRY(ProcessPageReader::create(options_.pid));
  MIGRATE_TRY(judge_running());
  const auto wait = [&](std::chrono::microseconds left) -> Result<void> {
    for (; left.count() > 0; left -= kLook) {
      MIGRATE_TRY(still_wanted());
      std::this_thread::sleep_for(std::min(left, kLook));
    }
    return {};
  };
  const wire::Image& draft = travel_.draft();
  return sample_memory(*reader, served_regions(draft.objects(), only_process(draft)),
                       {.time = time, .wait = wait});
}

Result<void> FrozenSource::complete_image(std::int64_t clock_offset_ns) {
  mutable_only_process(image_).set_clock_offset_ns(clock_offset_ns);
  content_files_ = MIGRATE_TRY(capture_contents(options_.pid, image_));
  MIGRATE_TRY(capture_starter_pages(*freeze_->process, mutable_only_process(image_)));
  return wish_ ? note_arrival(options_.pid, *wish_, options_.request.asked,
                              mutable_only_process(image_))
               : Result<void>();
}

std::string_view FrozenSource::serialise_image() {
  image_.SerializeToString(&image_bytes_);
  report_.note_image(image_bytes_.size());
  return image_bytes_;
}

Result<void> FrozenSource::prepare_to_park(const SessionId& session) {
  refusals_ = inspector_->check_frozen();
  find_losses(image_, true);
  if (!refusals_.empty()) {
    return fail(refused());
  }
  return ParkedProcess::write_record(*freeze_->process, image_bytes_, session, options_.process);
}

Result<void> FrozenSource::park() {
  const std::int64_t start = now_us();
  parked_.emplace(MIGRATE_TRY(ParkedProcess::park(*freeze_->process, only_process(image_))));
  report_.end_phase("park", start);
  options_.context->stops.reach("source.parked");
  return {};
}

Result<void> FrozenSource::resume() {
  if (options_.request.starts) {  // It was to run there or nowhere.
    parked_->end();
    return {};
  }
  return parked_->unpark(only_process(image_));
}

void FrozenSource::unpark() {
  if (auto back = resume(); !back) {
    log::error("process {} could not be resumed: {}", options_.pid, back.error().message());
  }
  parked_.reset();
  end_watch();
}

Result<void> FrozenSource::clear_away(FrozenProcess& frozen, const std::vector<WaitRecord>& waits) {
  auto closed = frozen.close_area();
  waits_ = record_waits(frozen, waits);
  return closed;
}

void FrozenSource::end_freeze() {
  if (freeze_ && freeze_->process && freeze_->process->is_held()) {
    FrozenProcess& frozen = *freeze_->process;  // It came to nothing.
    if (auto cleared = clear_away(frozen, waits_that_go_on(frozen, waits_)); !cleared) {
      log::error("process {} keeps what moves it: {}", options_.pid, cleared.error().message());
    }
  }
  freeze_.reset();
  content_files_.clear();
  std::string().swap(image_bytes_);
}

void FrozenSource::adopt(std::optional<ParkedProcess> parked, wire::Image image) {
  image_ = std::move(image);
  if (parked) {
    parked_.emplace(std::move(*parked));
  }
}

ParkedProcess FrozenSource::replace(ParkedProcess keeper) {
  ParkedProcess ended = std::move(*parked_);
  parked_.emplace(std::move(keeper));
  original_ = Original::kHere;
  return ended;
}

Result<std::unique_ptr<PageFeed>> FrozenSource::make_feed(const PageServerOptions& options) {
  if (!parked_ && (!freeze_ || !freeze_->process)) {
    return fail(make_error(ErrorCode::kNotFound, "serve the pages of", name(), "it is not held"));
  }
  UniqueFd memory =
      MIGRATE_TRY(parked_ ? parked_->memory() : freeze_->process->area().duplicate_memory());
  // The kernel takes them away as wholes, up to Linux 6.0 even if asked for a part.
  confirmed_.withhold(huge_pages(only_process(image_)));
  auto feed = MIGRATE_TRY(PageFeed::create(parked_ ? parked_->process() : options_.pid,
                                           std::move(memory), image_, options));
  if (ahead_) {
    feed->server().leave_out(ahead_->kept());
  }
  return feed;
}

void FrozenSource::leave(std::size_t handover) {
  confirmed_.leave(handover);
  end_watch();
}

void FrozenSource::note_confirmed(std::size_t handover, const std::vector<PageRange>& ranges) {
  if (!parked_ || original_ == Original::kGone) {
    return;
  }
  confirmed_.note(handover, ranges);
  original_ = give_back(confirmed_, [this](const std::vector<PageRange>& pages) {
    auto freed = parked_->free(pages);
    if (!freed) {
      log::warn("{}: {}", name(), freed.error().message());
    }
    return freed;
  });
}

}  // namespace migrate
