// What a guest worker leaves for the one that takes over when it dies, and how that one goes on.
#include <fcntl.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "libmigrate/guest/clear_session.h"
#include "libmigrate/guest/guest.h"
#include "libmigrate/guest/guest_worker.h"
#include "libmigrate/restore/file_user.h"
#include "libmigrate/state/verdict.h"

namespace migrate {
namespace {

Kept::Kind kept_kind(RelayEnd::Kind kind) {
  switch (kind) {
    case RelayEnd::Kind::kIn:
      return Kept::Kind::kRelayIn;
    case RelayEnd::Kind::kOut:
      return Kept::Kind::kRelayOut;
    default:
      return Kept::Kind::kRelayUnread;
  }
}

}  // namespace

void GuestWorker::note_waits() {
  for (const WaitRecord& wait : waits_) {
    wire::TimedWait& noted = *noted_.add_waits();
    noted.set_thread(wait.thread);
    noted.set_number(wait.number);
    noted.mutable_arguments()->Assign(wait.arguments.begin(), wait.arguments.end());
    noted.set_deadline_ns(wait.deadline_ns);
    noted.set_switches(wait.switches);
  }
}

void GuestWorker::adopt_waits() {
  for (const wire::TimedWait& noted : noted_.waits()) {
    WaitRecord wait{.thread = noted.thread(),
                    .number = noted.number(),
                    .deadline_ns = noted.deadline_ns(),
                    .switches = noted.switches()};
    std::copy_n(noted.arguments().begin(),
                std::min<std::size_t>(noted.arguments().size(), wait.arguments.size()),
                wait.arguments.begin());
    waits_.push_back(wait);
  }
}

std::string GuestWorker::cell_socket() const {
  return SessionFile::directory(context_.state_directory) + "/" +
         cell_session_name(to_hex(session_)) + ".socket";
}

// Before the process may run: all that outlives this worker but the userfaultfd, by which the init
// knows that it has to stay.
Result<void> GuestWorker::note_image(const wire::Image& image) {
  for (const wire::FileIdentity& file : image.mapped_files()) {
    *noted_.add_mapped_files() = file;
  }
  for (const auto& [inode, id] : relay_inodes_) {
    (*noted_.mutable_relay_inodes())[inode] = id;
  }
  for (const PagerSpace& space : pager_->spaces()) {
    MIGRATE_TRY(cell_->keep({.kind = Kept::Kind::kLedger, .number = space.number}, space.ledger));
  }
  for (const auto& [id, file] : shared_files_) {
    const auto number = static_cast<std::uint32_t>(id);
    MIGRATE_TRY(cell_->keep({.kind = Kept::Kind::kSharedFile, .number = number}, file.get()));
  }
  *noted_.mutable_relay() = relay_->note();
  note_waits();
  MIGRATE_TRY(keep_relay_ends());
  return file_->save(noted_.SerializeAsString());
}

void GuestWorker::note_change() {
  if (!relay_) {
    return;
  }
  *noted_.mutable_relay() = relay_->note();
  if (auto saved = file_->save(noted_.SerializeAsString()); !saved) {
    log::warn("{}", saved.error().message());
  }
  if (auto kept = keep_relay_ends(); !kept) {
    log::error("a stream of process {} is lost if this worker dies before its next change: {}",
               noted_.command(), kept.error().message());
  }
}

// The init holds what is open here and nothing else: what it held longer, the process would not see
// closed.
Result<void> GuestWorker::keep_relay_ends() {
  Result<void> all;
  std::set<std::pair<Kept::Kind, std::uint32_t>> open;
  for (const RelayEnd& end : relay_->ends()) {
    const Kept what{.kind = kept_kind(end.kind), .number = end.id + 1};
    if (!kept_ends_.contains({what.kind, what.number})) {
      if (auto kept = cell_->keep(what, end.fd); !kept) {
        all = std::move(kept);  // Tried again at the next change.
        continue;
      }
    }
    open.emplace(what.kind, what.number);
  }
  for (const auto& [kind, number] : kept_ends_) {
    if (!open.contains({kind, number})) {
      static_cast<void>(cell_->drop({.kind = kind, .number = number}));
    }
  }
  kept_ends_ = std::move(open);
  return all;
}

void GuestWorker::run_adopted(SessionFile file) {
  file_.emplace(std::move(file));
  control_.reset();
  const auto adopted = adopt();
  if (!adopted) {
    log::error("session {} could not be taken over: {}", to_hex(session_),
               adopted.error().message());
    return;
  }
  if (*adopted) {
    serve_until_end();
  }
}

// False: nothing is left to do.
Result<bool> GuestWorker::adopt() {
  MIGRATE_TRY(file_->await_worker_gone());
  file_->take();
  if (!noted_.ParseFromString(MIGRATE_TRY(file_->load())) ||
      noted_.process().size() != process_.size()) {
    noted_.Clear();
  }
  std::copy_n(reinterpret_cast<const std::byte*>(noted_.process().data()), noted_.process().size(),
              process_.begin());
  file_->await_start();
  // That its cell is there is found out where it is taken over.
  if (verdict(phase(), false, true) == SessionVerdict::kNeverRan) {
    log::info("session {}: its worker died before the process ran here", to_hex(session_));
    clear_session(context_, *file_, session_);
    return false;
  }
  row_.emplace(MIGRATE_TRY(
      ProcessRow::open(context_.state_directory, to_hex(process_), ProcessRole::kResident)));
  mailbox_.emplace(MIGRATE_TRY(Mailbox::create(context_.state_directory, to_hex(session_))));
  source_.common_name = noted_.source_name();
  source_.alternative_names.assign(noted_.source_names().begin(), noted_.source_names().end());
  plan_ = noted_plan(noted_.mode());
  host_clocks_ = MIGRATE_TRY(clock_offsets(0));
  own_facts_.set_boot_id(boot_id());
  pager_events_.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  over_since_us_ = now_us();
  adopt_waits();
  MIGRATE_TRY(adopt_cell());
  MIGRATE_TRY(open_mailbox());
  context_.stops.reach("destination.adopting");
  log::info("took over session {} of process {}", to_hex(session_), noted_.command());
  adopt_move();
  if (gone()) {
    close_session();
  }
  return !gone();
}

Result<void> GuestWorker::adopt_cell() {
  std::vector<KeptDescriptor> kept;
  auto cell = Cell::adopt(cell_socket(), file_->mark(), kept);
  if (!cell && cell.error().code == ErrorCode::kRetry) {
    return fail(cell.error());
  }
  if (cell) {
    cell_.emplace(std::move(*cell));
    cell_kept_ = true;
    MIGRATE_TRY(adopt_pager(kept));
    enter(GuestPhase::kServing);
  } else {
    cell_.emplace(Cell::gone(cell_socket(), file_->mark()));
    enter(GuestPhase::kIndependent);
    last_progress_.set_done(true);
  }
  return adopt_relay(kept);
}

Result<void> GuestWorker::adopt_pager(std::vector<KeptDescriptor>& kept) {
  std::map<std::uint32_t, AdoptedSpace> spaces;
  for (KeptDescriptor& each : kept) {
    if (each.what.kind == Kept::Kind::kUserfault) {
      spaces.try_emplace(each.what.number,
                         AdoptedSpace{each.what.number, each.what.parent,
                                      Userfault::adopt(std::move(each.fd)), UniqueFd()});
    }
  }
  for (KeptDescriptor& each : kept) {
    const auto space = spaces.find(each.what.number);
    if (each.what.kind == Kept::Kind::kLedger && space != spaces.end()) {
      space->second.ledger = std::move(each.fd);
    }
  }
  // One whose pager had done all before it ran has no ledger either.
  const bool done = spaces.empty() || !spaces.begin()->second.ledger.valid();
  if (done || independent()) {
    enter(GuestPhase::kIndependent);
    last_progress_.set_done(true);
    return {};
  }
  std::vector<AdoptedSpace> all;
  all.reserve(spaces.size());
  for (auto& [number, space] : spaces) {
    all.push_back(std::move(space));
  }
  std::vector<UniqueFd> files;
  {
    const FileUser user(noted_.credentials(), noted_.trusted());
    FileUser::Scope as_user(user);
    for (const wire::FileIdentity& file : noted_.mapped_files()) {
      auto opened = as_user.open(file, O_RDONLY);
      files.push_back(opened ? std::move(*opened) : UniqueFd());
    }
  }
  pager_ = MIGRATE_TRY(Pager::adopt(pager_options(), std::move(all), std::move(files)));
  return {};
}

Result<void> GuestWorker::adopt_relay(std::vector<KeptDescriptor>& kept) {
  GuestRelay::Handlers handlers;
  handlers.on_signal = [this](std::span<const std::byte> siginfo) { deliver(siginfo); };
  handlers.on_command = [](std::uint64_t, const std::string&) {};
  handlers.on_change = [this] { note_change(); };
  std::vector<GuestRelay::Adopted> ends;
  for (KeptDescriptor& each : kept) {
    if (each.what.kind == Kept::Kind::kSharedFile) {
      shared_files_.emplace(each.what.number, std::move(each.fd));
      continue;
    }
    for (const auto kind : {RelayEnd::Kind::kIn, RelayEnd::Kind::kOut, RelayEnd::Kind::kUnread}) {
      if (each.what.kind == kept_kind(kind)) {
        kept_ends_.emplace(each.what.kind, each.what.number);
        ends.push_back({each.what.number - 1, kind, std::move(each.fd)});
      }
    }
  }
  relay_ = MIGRATE_TRY(GuestRelay::adopt(noted_.relay(), std::move(ends), std::move(handlers)));
  for (const auto& [inode, id] : noted_.relay_inodes()) {
    relay_inodes_.emplace(inode, id);
  }
  if (noted_.relay().has_exited()) {
    exited_ = true;
  }
  relay_->report_location(context_.own_address.to_string(), to_hex(session_));
  return {};
}

// A move away that the dead worker had begun: decided, given up half-way, or never begun.
void GuestWorker::adopt_move() {
  if (!noted_.has_outgoing()) {
    return;
  }
  SessionId session{};
  std::copy_n(reinterpret_cast<const std::byte*>(noted_.outgoing().session().data()),
              std::min(noted_.outgoing().session().size(), session.size()), session.begin());
  wire::Image image;
  auto parked = ParkedProcess::adopt(cell_->seed(), file_->mark().area, session, image);
  if (!parked) {
    if (parked.error().code != ErrorCode::kNotFound) {
      log::error("process {}: {}", noted_.command(), parked.error().message());
    }
    noted_.clear_outgoing();
    if (gone()) {  // It runs elsewhere, and its pages went with its cell.
      row_->remove();
    }
    return;
  }
  SourceMoveOptions options = onward_options(noted_plan(noted_.outgoing().mode()));
  options.destination =
      Address::parse(noted_.outgoing().destination()).value_or(context_.own_address);
  context_.stops.reach("source.adopting");
  EventSink nobody;
  auto move = SourceMove::adopt(std::move(options), onward_hooks(), nobody, std::move(*parked),
                                std::move(image), noted_.outgoing());
  finish_move(*move, nobody, MoveWait::kResumed);
}

void run_adopted_guest(const WorkerContext& context, SessionFile file, const SessionId& session) {
  GuestWorker(context, {}, session, {}).run_adopted(std::move(file));
}

}  // namespace migrate
