#include "libmigrate/guest/guest_adoption.h"

#include <map>
#include <utility>

#include "base/log.h"
#include "libmigrate/guest/clear_session.h"
#include "libmigrate/guest/guest_pages.h"
#include "libmigrate/guest/guest_setup.h"
#include "libmigrate/requests/move_plan.h"
#include "libmigrate/state/phase.h"

namespace migrate {
namespace {

// By number; a space without a ledger is as its parent's says.
std::map<std::uint32_t, AdoptedSpace> spaces_of(std::vector<KeptDescriptor>& kept) {
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
  return spaces;
}

}  // namespace

Result<std::optional<GuestAdoption::Adopted>> GuestAdoption::take_over(SessionFile file) {
  MIGRATE_TRY(file.await_worker_gone());
  file.take();
  wire::CellSession noted = MIGRATE_TRY(read_noted(file));
  const SessionId process = process_of(noted);
  file.await_start();
  // That its cell is there is found out where it is taken over.
  if (verdict(file.mark().phase.guest(), false, true) == SessionVerdict::kNeverRan) {
    log::info("session {}: its worker died before the process ran here", to_hex(session_));
    clear_session(context_, file, session_);
    return std::nullopt;
  }
  Adopted adopted;
  ProcessRow row =
      MIGRATE_TRY(ProcessRow::open(context_.state_directory, to_hex(process), ProcessRole::kGuest));
  adopted.mailbox.emplace(MIGRATE_TRY(Mailbox::create(context_.state_directory, to_hex(session_))));
  adopted.host_clocks = MIGRATE_TRY(clock_offsets(0));
  PeerIdentity source;
  source.common_name = noted.source_name();
  source.alternative_names.assign(noted.source_names().begin(), noted.source_names().end());
  adopted.guest = std::make_unique<Guest>(
      context_, session_, process, source,
      GuestRecord(std::move(file), std::move(row), session_, std::move(noted)), world_.clock);
  Guest& guest = *adopted.guest;
  guest.set_home(make_home_link(guest, world_));
  guest.objects().adopt(guest.record().noted());
  MIGRATE_TRY(adopt_cell(guest));
  MIGRATE_TRY(adopt_relay(guest));
  MIGRATE_TRY(open_guest_mailbox(*adopted.mailbox, context_, source, guest.record().noted()));
  context_.stops.reach("destination.adopting");
  log::info("took over session {} of process {}", to_hex(session_), guest.name());
  return adopted;
}

Result<void> GuestAdoption::adopt_cell(Guest& guest) {
  GuestRecord& record = guest.record();
  const std::string socket = cell_socket(context_, session_);
  auto found = Cell::adopt(socket, record.file().mark(), kept_);
  if (!found && found.error().code == ErrorCode::kRetry) {
    return fail(found.error());
  }
  auto cell =
      std::make_unique<Cell>(found ? std::move(*found) : Cell::gone(socket, record.file().mark()));
  Cell& borrowed = *cell;
  guest.set_cell(std::move(cell));
  guest.set_pages(MIGRATE_TRY(adopt_pages(guest, borrowed)));
  record.enter(found ? GuestPhase::kServing : GuestPhase::kIndependent);
  return {};
}

Result<std::unique_ptr<OwedPages>> GuestAdoption::adopt_pages(Guest& guest, Cell& cell) {
  GuestRecord& record = guest.record();
  auto pages = std::make_unique<GuestPages>(cell, guest.name(), session_);
  std::map<std::uint32_t, AdoptedSpace> spaces = spaces_of(kept_);
  // One whose pager had done all before it ran has no ledger either.
  const bool done = spaces.empty() || !spaces.begin()->second.ledger.valid();
  if (done || guest.independent()) {
    record.enter(GuestPhase::kIndependent);
    if (!spaces.empty()) {  // The dead worker had not come to that.
      guest.let_go_of_pages();
    }
    return pages;
  }
  std::vector<AdoptedSpace> all;
  all.reserve(spaces.size());
  for (auto& [number, space] : spaces) {
    all.push_back(std::move(space));
  }
  const wire::CellSession& noted = record.noted();
  pages->set_pager(MIGRATE_TRY(Pager::adopt(
      pages->options(context_.spin_us, noted_plan(noted.mode()), cell.init()), std::move(all),
      open_mapped_files(noted.mapped_files(), FileUser(noted.credentials(), noted.trusted())))));
  return pages;
}

Result<void> GuestAdoption::adopt_relay(Guest& guest) {
  const wire::CellSession& noted = guest.record().noted();
  std::vector<GuestRelay::Adopted> ends;
  for (KeptDescriptor& each : kept_) {
    if (each.what.kind == Kept::Kind::kSharedFile) {
      guest.objects().adopt_file(each.what.number, std::move(each.fd));
      continue;
    }
    for (const auto kind : {RelayEnd::Kind::kIn, RelayEnd::Kind::kOut, RelayEnd::Kind::kUnread,
                            RelayEnd::Kind::kGateway}) {
      if (each.what.kind == kept_kind(kind)) {
        guest.record().note_kept(each.what);
        ends.push_back({each.what.number - 1, kind, std::move(each.fd)});
      }
    }
  }
  guest.home().set_relay(
      MIGRATE_TRY(GuestRelay::adopt(noted.relay(), std::move(ends), guest.relay_handlers())));
  if (noted.relay().has_exited()) {
    guest.note_exited();
  }
  guest.home().relay()->report_location(context_.own_address.to_string(), to_hex(session_));
  return {};
}

}  // namespace migrate
