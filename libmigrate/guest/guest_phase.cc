// The phase of a guest: what of it is written down where.
#include "base/log.h"
#include "libmigrate/guest/guest_worker.h"
#include "libmigrate/state/row_state.h"

namespace migrate {

// The one place where the worker writes it: into the record, the log and the row. `wait_status`
// counts if the process has ended with it, and nobody has noted how before.
void GuestWorker::enter(GuestPhase phase, int wait_status) {
  const GuestPhase before = this->phase();
  const GuestPhase now = file_->mark().phase.enter(phase, wait_status);
  log::debug("session {}: {} ({} after {})", to_hex(session_), to_string(now), to_string(phase),
             to_string(before));
  // From AwaitsRun until it runs the row says the same, and the process waits for every step.
  if (now < GuestPhase::kAwaitsRun || now > GuestPhase::kRan) {
    record();
  }
}

// The row is what the record says, and nothing else.
void GuestWorker::record() {
  const auto state = row_state(phase(), children_left());
  if (!state || !row_ || !cell_) {
    return;
  }
  ProcessRecord row;
  row.pid = cell_->seed();
  row.home = noted_.home();
  row.session = to_hex(session_);
  row.mailbox = to_hex(session_);
  row.mode = noted_.mode();
  row.state = *state;
  if (has_ended(phase())) {
    row.exit_status = file_->mark().phase.wait_status();
  }
  row.owed_pages = pager_ && !independent() ? pager_->owed_pages() : 0;
  row.uid = noted_.user();
  row.command = noted_.command();
  row.result = lost_.empty() ? std::string() : nlohmann::json{{"lost", lost_}}.dump();
  row_->write(std::move(row));
}

}  // namespace migrate
