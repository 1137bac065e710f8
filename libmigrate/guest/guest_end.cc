// How the worker of a guest learns of its end, and of that of its children, and tells of it.
#include <signal.h>
#include <sys/wait.h>

#include "base/log.h"
#include "libmigrate/guest/guest.h"

namespace migrate {

void Guest::read_cell() {
  while (!cell_over()) {
    const auto event = cell_->read_event();
    if (!event && event.error().code == ErrorCode::kRetry) {
      return;
    }
    note_event(event.value_or(CellEvent{.kind = CellEvent::Kind::kEmpty}));
  }
}

void Guest::note_event(const CellEvent& event) {
  // If the init was killed, it could not say how the process ended.
  const bool was_noted = has_ended(phase());
  const bool was_reported = exited();
  int status = was_noted ? record_.wait_status() : SIGKILL;
  if (event.kind == CellEvent::Kind::kStatus) {
    status = event.wait_status;
    if (WIFSTOPPED(status) || WIFCONTINUED(status)) {
      home_->relay()->report_job_state(WIFSTOPPED(status) ? WSTOPSIG(status) : 0);
      return;
    }
  } else {
    in_cell_ = InCell::kNothing;
    over_since_us_ = clock_();
    if (was_reported) {
      end_children();
      return;
    }
  }
  if (!was_reported) {
    context_.stops.reach("destination.exit");
    std::string lost;
    if (!was_noted) {
      lost = "the cell of process " + name() + " on host " + context_.host_name +
             " was killed, and the process with it";
    }
    report_end(status, lost);
  }
}

// A process that is owed pages may end with a core dump.
void Guest::watch_core() {
  if (!independent() && !exited() && !core_watch_.has_execed()) {
    core_watch_.look(cell_->seed(), pages_->first_gone());
  }
}

void Guest::report_end(int status, const std::string& lost) {
  if (!lost.empty()) {
    log::error("process {}: {}", name(), lost);
  }
  if (in_cell_ == InCell::kProcess) {
    in_cell_ = lost.empty() ? InCell::kChildren : InCell::kKilled;
  }
  lost_ = lost;
  record_.enter(GuestPhase::kEnded, status);
  status = record_.wait_status();  // The init may have noted it first.
  const std::uint64_t owed = independent() ? 0 : pages_->owed_to_first();
  const IncompleteCore core =
      core_watch_.note_end(cell_->seed(), status, owed, record_.noted().credentials(), name());
  source_.hurry();
  tell_source();  // Its figures are whole when home hears of the end.
  home_->relay()->report_exit(status, children_left(), lost, objects_.positions(), core);
}

// Of children that the process left, killed with their cell or not, nothing is left.
void Guest::end_children() {
  home_->relay()->report_descendants_ended();
  record_.write_row();
}

// The process has ended, and children of it are owed pages that nobody has any more.
void Guest::give_up_children(const std::string& reason) {
  log::error("children of process {} are ended: {}", name(), reason);
  cell_->end();
}

Error Guest::ended_error() const {
  return make_error(ErrorCode::kNotFound, "carry out a request", "process " + name(),
                    cell_over() ? "it has ended" : "it has ended; only children of it are left");
}

}  // namespace migrate
