#include "libmigrate/home/home_record.h"

#include <algorithm>
#include <cctype>
#include <utility>

#include "base/file.h"
#include "base/log.h"
#include "libmigrate/requests/request_json.h"
#include "libmigrate/state/global_name.h"
#include "libmigrate/state/phase.h"

namespace migrate {

std::string command_line(pid_t pid) {
  const std::string base = "/proc/" + std::to_string(pid);
  auto text = read_file(base + "/cmdline");
  if (!text || text->empty()) {
    text = read_file(base + "/comm");
  }
  if (!text) {
    return {};
  }
  while (!text->empty() && (text->back() == '\0' || text->back() == '\n')) {
    text->pop_back();
  }
  std::replace_if(
      text->begin(), text->end(), [](unsigned char c) { return std::iscntrl(c) != 0; }, ' ');
  return *text;
}

Result<HomeRecord> HomeRecord::create(const std::string& state_directory,
                                      const MoveRequest& request) {
  auto pid_lock = MIGRATE_TRY(PidLock::take(state_directory, request.pid));
  const SessionId process = MIGRATE_TRY(random_session_id());
  const SessionId token = MIGRATE_TRY(random_session_id());
  auto row = MIGRATE_TRY(ProcessRow::open(state_directory, to_hex(process), ProcessRole::kHome));
  auto file = MIGRATE_TRY(SessionFile::create(state_directory, home_session_name(to_hex(process))));
  HomeRecord record(std::move(file), std::move(row), process);
  record.pid_lock_ = std::move(pid_lock);
  record.mode_ = request.plan.word;
  record.file_.mark().process = request.pid;
  record.file_.mark().process_start = start_time(request.pid);
  record.text_.set_pid(request.pid);
  record.text_.set_token(to_hex(token));
  record.text_.set_command(command_line(request.pid));
  record.text_.set_user(request.uid);
  record.text_.set_starts(request.starts);
  record.text_.set_wait(std::string(to_string(request.wait)));
  return record;
}

Result<HomeRecord> HomeRecord::adopt(const std::string& state_directory, SessionFile& file,
                                     const SessionId& process) {
  MIGRATE_TRY(file.await_worker_gone());
  file.take();
  auto row = MIGRATE_TRY(ProcessRow::open(state_directory, to_hex(process), ProcessRole::kHome));
  wire::HomeSession text;
  if (!text.ParseFromString(MIGRATE_TRY(file.load()))) {
    return fail(make_error(ErrorCode::kCorrupt, "read the session of a process"));
  }
  HomeRecord record(std::move(file), std::move(row), process);
  record.text_ = std::move(text);
  if (auto lock = PidLock::take(state_directory, record.pid())) {
    record.pid_lock_ = std::move(*lock);
  }
  record.mode_ = noted_plan(record.text_.outgoing().mode()).word;
  record.where_ = {record.text_.where(), record.text_.where_session()};
  return record;
}

void HomeRecord::enter(HomePhase phase, const LastMove& move, int wait_status) {
  const HomePhase before = this->phase();
  const HomePhase now = file_.mark().phase.enter(phase, wait_status);
  log::debug("process {}: {} ({} after {})", to_hex(process_), to_string(now), to_string(phase),
             to_string(before));
  write_row(move);
}

// What its own source owes it is a phase of this host's; what others do is not.
std::optional<ProcessState> HomeRecord::state_of(const LastMove& move) const {
  const auto state = row_state(phase());
  return state == ProcessState::kDone && move.is_owed ? ProcessState::kAway : state;
}

void HomeRecord::show_progress(const LastMove& move) {
  if (const auto state = state_of(move)) {
    row_.set_progress(*state, move.owed_pages, move.owed_by, move.result);
  }
}

// Of an end, and of a process that stays, only that is written: the rest of the row tells of its
// last move.
void HomeRecord::write_row(const LastMove& move) {
  const auto state = state_of(move);
  if (!state) {
    return;
  }
  if (phase() == HomePhase::kEnded) {
    row_.set_exit(file_.mark().phase.wait_status(), *state);
    return;
  }
  if (phase() == HomePhase::kStayed) {
    row_.set_state(*state);
    return;
  }
  ProcessRecord row;
  row.pid = pid();
  row.where = where_.host;
  row.session = where_.session;
  row.mode = mode_;
  row.state = *state;
  if (has_ended(phase())) {
    row.exit_status = file_.mark().phase.wait_status();
  }
  row.owed_pages = move.owed_pages;
  row.owed_by = move.owed_by;
  row.uid = text_.user();
  row.command = command();
  row.identity = to_string(text_.name());
  if (*state != ProcessState::kMoving) {
    row.result = move.result;
  }
  row_.write(std::move(row));
}

void HomeRecord::show_waiting(const Departure& move, std::int64_t now_us) {
  std::string waits_for = move.waits_for();
  if (!waits_for.empty() && move.fate() == Fate::kUnknown) {
    waits_for = "in doubt whether it runs at " + waits_for;
  }
  show_waiting(waits_for, now_us - move.waits_since_us());
}

Result<void> HomeRecord::save() {
  text_.set_where(where_.host);
  text_.set_where_session(where_.session);
  return file_.save(text_.SerializeAsString());
}

void HomeRecord::keep() {
  if (auto saved = save(); !saved) {
    log::warn("{}", saved.error().message());
  }
}

}  // namespace migrate
