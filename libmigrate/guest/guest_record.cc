#include "libmigrate/guest/guest_record.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/log.h"
#include "libmigrate/requests/json_member.h"
#include "libmigrate/state/global_name.h"
#include "libmigrate/state/phase.h"

namespace migrate {

Kept::Kind kept_kind(RelayEnd::Kind kind) {
  switch (kind) {
    case RelayEnd::Kind::kIn:
      return Kept::Kind::kRelayIn;
    case RelayEnd::Kind::kOut:
      return Kept::Kind::kRelayOut;
    case RelayEnd::Kind::kGateway:
      return Kept::Kind::kGateway;
    default:
      return Kept::Kind::kRelayUnread;
  }
}

Result<wire::CellSession> read_noted(const SessionFile& file) {
  wire::CellSession noted;
  if (!noted.ParseFromString(MIGRATE_TRY(file.load())) ||
      noted.process().size() != SessionId().size()) {
    noted.Clear();
  }
  return noted;
}

SessionId process_of(const wire::CellSession& noted) {
  SessionId process{};
  std::copy_n(reinterpret_cast<const std::byte*>(noted.process().data()),
              std::min(noted.process().size(), process.size()), process.begin());
  return process;
}

GuestRecord::GuestRecord(SessionFile file, ProcessRow row, const SessionId& session,
                         wire::CellSession noted)
    : file_(std::move(file)), row_(std::move(row)), session_(session), noted_(std::move(noted)) {}

void GuestRecord::enter(GuestPhase phase, int wait_status) {
  const GuestPhase before = this->phase();
  const GuestPhase now = file_.mark().phase.enter(phase, wait_status);
  log::debug("session {}: {} ({} after {})", to_hex(session_), to_string(now), to_string(phase),
             to_string(before));
  // Until it runs the row says the same, and the process waits for every step.
  if (!is_hurried(now)) {
    write_row();
  }
}

void GuestRecord::write_row() {
  const Facts facts = facts_();
  const auto state = row_state(phase(), facts.children_left);
  const pid_t process = file_.mark().process;
  if (!state || process == 0) {
    return;
  }
  ProcessRecord row;
  row.pid = process;
  row.home = noted_.home();
  row.session = to_hex(session_);
  row.mailbox = to_hex(session_);
  row.mode = noted_.mode();
  row.state = *state;
  if (has_ended(phase())) {
    row.exit_status = wait_status();
  }
  row.where = facts.where;
  row.owed_pages = facts.owed_pages;
  row.owed_by = facts.owed_by;
  row.uid = noted_.user();
  row.command = noted_.command();
  row.identity = to_string(noted_.name());
  row.moves = noted_.name().moves();
  row.result = facts.lost.empty() ? std::string() : json_text({{"lost", facts.lost}});
  row_.write(std::move(row));
}

Result<void> GuestRecord::keep_ends(CellControl& cell, const GuestRelay& relay) {
  Result<void> all;
  std::set<std::pair<Kept::Kind, std::uint32_t>> open;
  for (const RelayEnd& end : relay.ends()) {
    const Kept what{.kind = kept_kind(end.kind), .number = end.id + 1};
    if (!kept_ends_.contains({what.kind, what.number})) {
      if (auto kept = cell.keep(what, end.fd); !kept) {
        all = std::move(kept);
        continue;
      }
    }
    open.emplace(what.kind, what.number);
  }
  for (const auto& [kind, number] : kept_ends_) {
    if (open.contains({kind, number})) {
      continue;
    }
    if (auto dropped = cell.drop({.kind = kind, .number = number}); !dropped) {
      all = std::move(dropped);
      open.emplace(kind, number);  // It holds it still.
    }
  }
  kept_ends_ = std::move(open);
  return all;
}

}  // namespace migrate
