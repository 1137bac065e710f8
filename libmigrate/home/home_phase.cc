// The phase of a process at its home: what of it is written down where.
#include "base/log.h"
#include "libmigrate/home/home_worker.h"
#include "libmigrate/state/row_state.h"

namespace migrate {

// The one place where it is written: into the record, the log and the row. `wait_status` counts if
// the process has ended with it, and nobody has noted how before.
void HomeWorker::enter(HomePhase phase, int wait_status) {
  const HomePhase before = this->phase();
  const HomePhase now = file_->mark().phase.enter(phase, wait_status);
  log::debug("process {}: {} ({} after {})", to_hex(process_), to_string(now), to_string(phase),
             to_string(before));
  record();
}

// The row is what the record says. Of an end, and of a process that stays, only that is written:
// the rest of the row tells of its last move.
void HomeWorker::record() {
  const auto state = row_state(phase());
  if (!state) {
    return;
  }
  if (phase() == HomePhase::kEnded) {
    row_->set_exit(file_->mark().phase.wait_status(), *state);
    return;
  }
  if (!move_ || phase() == HomePhase::kStayed) {
    row_->set_state(*state);
    return;
  }
  ProcessRecord row;
  row.pid = request_.pid;
  row.where = where_.host;
  row.session = where_.session;
  row.mode = request_.plan.word;
  row.state = *state;
  if (has_ended(phase())) {
    row.exit_status = file_->mark().phase.wait_status();
  }
  row.owed_pages = move_->owed_pages();
  row.uid = request_.uid;
  row.command = command_;
  if (*state != ProcessState::kMoving) {
    row.result = outcome().dump();
  }
  row_->write(std::move(row));
}

}  // namespace migrate
