#include "libmigrate/state/process_row.h"

#include <sys/stat.h>
#include <unistd.h>

#include <utility>

#include "base/clock.h"
#include "base/log.h"
#include "base/process_identity.h"

namespace migrate {
namespace {

/// Others write for microseconds. What takes longer is written by refresh(): a worker has to serve.
constexpr int kPatienceMs = 100;
constexpr int kLastPatienceMs = 5000;

}  // namespace

Result<ProcessRow> ProcessRow::open(const std::string& state_directory, const std::string& process,
                                    ProcessRole role) {
  Registry registry = MIGRATE_TRY(Registry::open(state_directory));
  registry.set_patience(kPatienceMs);
  ProcessRecord record;
  for (ProcessRecord& row : MIGRATE_TRY(registry.find_process(process))) {
    if (row.process == process && row.role == role) {
      record = std::move(row);
    }
  }
  record.process = process;
  record.role = role;
  record.worker = getpid();
  record.worker_start = start_time(getpid());
  return ProcessRow(std::move(registry), state_directory, std::move(record));
}

ProcessRow::ProcessRow(Registry registry, std::string state_directory, ProcessRecord record)
    : registry_(std::move(registry)),
      state_directory_(std::move(state_directory)),
      file_(file_id()),
      record_(std::move(record)) {}

void ProcessRow::write(ProcessRecord record) {
  record.process = record_.process;
  record.role = record_.role;
  record.worker = record_.worker;
  record.worker_start = record_.worker_start;
  record.created_us = record_.created_us;
  record.waits_for = record_.waits_for;
  record.waits_since_us = record_.waits_since_us;
  record_ = std::move(record);
  save_change();
}

void ProcessRow::set_state(ProcessState state, std::optional<std::uint64_t> owed_pages) {
  record_.state = state;
  record_.owed_pages = owed_pages.value_or(record_.owed_pages);
  save_change();
}

void ProcessRow::set_progress(ProcessState state, std::uint64_t owed_pages, std::string owed_by,
                              std::string json) {
  constexpr std::int64_t kProgressEveryUs = 500'000;
  const bool changes = state != record_.state || owed_pages == 0 || owed_by != record_.owed_by;
  record_.state = state;
  record_.owed_pages = owed_pages;
  record_.owed_by = std::move(owed_by);
  record_.result = std::move(json);
  if (changes || now_us() >= next_progress_us_) {
    next_progress_us_ = now_us() + kProgressEveryUs;
    save_change();
  }
}

void ProcessRow::set_exit(int wait_status, ProcessState state) {
  record_.state = state;
  record_.exit_status = wait_status;
  save_change();
}

void ProcessRow::set_result(std::string json) {
  record_.result = std::move(json);
  save_change();
}

void ProcessRow::set_waiting(const std::string& waits_for, std::int64_t waited_us) {
  if (waits_for != record_.waits_for) {
    record_.waits_for = waits_for;
    record_.waits_since_us = calendar_us() - waited_us;
    save();
  }
}

void ProcessRow::remove() {
  // Nobody will try again.
  registry_.set_patience(kLastPatienceMs);
  // A predecessor's row that could not be taken over yet is ours all the same.
  const pid_t worker = begun_ && !owned_ ? 0 : record_.worker;
  begun_ = false;
  if (auto removed = registry_.remove(record_.process, record_.role, worker); !removed) {
    log::warn("{}", removed.error().message());
  }
}

void ProcessRow::refresh() {
  constexpr std::int64_t kRefreshEveryUs = 1'000'000;
  if (!begun_ || now_us() < next_refresh_us_) {
    return;
  }
  next_refresh_us_ = now_us() + kRefreshEveryUs;
  if (!missed_ && file_ == file_id()) {
    return;
  }
  auto registry = Registry::open(state_directory_, kPatienceMs);
  if (!registry) {
    note(fail(registry.error()));
    return;
  }
  registry_ = std::move(*registry);
  file_ = file_id();
  save();
}

// Another file, or none, once the database was moved aside.
ProcessRow::FileId ProcessRow::file_id() const {
  struct stat status = {};
  if (::stat(Registry::path(state_directory_).c_str(), &status) != 0) {
    return {};
  }
  return {status.st_dev, status.st_ino};
}

void ProcessRow::save_change() {
  record_.updated_us = calendar_us();
  if (record_.created_us == 0) {
    record_.created_us = record_.updated_us;
  }
  save();
}

void ProcessRow::save() {
  begun_ = true;
  if (owned_) {
    note(registry_.upsert_own(record_));
    return;
  }
  const auto saved = registry_.upsert(record_);
  owned_ = saved.has_value();
  note(saved ? Result<bool>(true) : fail(saved.error()));
}

void ProcessRow::note(const Result<bool>& saved) {
  if (!saved && !missed_) {
    log::warn("the row of process {} is not up to date: {}", record_.process,
              saved.error().message());
  }
  missed_ = !saved;
}

}  // namespace migrate
