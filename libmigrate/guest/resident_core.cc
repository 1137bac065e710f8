// The core dump of a process that ends while it is owed pages: the kernel does not wait for them.
#include <fcntl.h>
#include <sys/wait.h>

#include <sstream>
#include <string>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "libmigrate/guest/resident_worker.h"

namespace migrate {
namespace {

// Where the kernel put the first stack of what a process is now; with execve it is elsewhere.
std::string first_stack(pid_t process) {
  constexpr int kFieldAfterName = 26;  // startstack, the 28th of all
  const auto text = read_file("/proc/" + std::to_string(process) + "/stat");
  const std::size_t name_end = text ? text->rfind(')') : std::string::npos;
  if (name_end == std::string::npos) {
    return {};
  }
  std::istringstream fields(text->substr(name_end + 1));
  std::string field;
  for (int i = 0; i < kFieldAfterName; ++i) {
    fields >> field;
  }
  return field;
}

}  // namespace

// Where the dump would go, as long as it would lack pages: of a process that has ended nobody
// knows.
void ResidentWorker::watch_core() {
  constexpr std::int64_t kLookEveryUs = 2'000;  // It is woken by faults, among others.
  if (!pager_ || independent() || exited_ || has_execed_ || now_us() < next_core_us_) {
    return;
  }
  next_core_us_ = now_us() + kLookEveryUs;
  const std::string process = "/proc/" + std::to_string(cell_->seed());
  const bool gone = pager_->statistics().first_gone;
  const std::string stack = first_stack(cell_->seed());
  if (stack.empty() || stack == "0") {
    return;  // It has given up its memory: it is ending.
  }
  first_stack_ = first_stack_.empty() ? stack : first_stack_;
  if (gone || stack != first_stack_) {
    has_execed_ = true;
    return;
  }
  if (core_owner_.inner_pid == 0) {
    core_owner_.inner_pid = inner_thread_id(cell_->seed(), cell_->seed()).value_or(0);
  }
  if (auto directory = open_file(process + "/cwd", O_PATH | O_DIRECTORY | O_CLOEXEC)) {
    working_directory_ = std::move(*directory);
  }
  if (const auto command = read_file(process + "/comm"); command && !command->empty()) {
    core_owner_.command = command->substr(0, command->size() - 1);
  }
  if (auto program = read_link(process + "/exe")) {
    core_owner_.program = std::move(*program);
  }
}

void ResidentWorker::note_core(int status) {
  if (!WIFSIGNALED(status) || !WCOREDUMP(status) || !pager_ || independent() || has_execed_) {
    return;
  }
  core_.lacks_pages = pager_->statistics().first_owed_pages;
  if (core_.lacks_pages == 0) {
    return;
  }
  const wire::Credentials& credentials = noted_.credentials();
  core_owner_.pid = cell_->seed();
  core_owner_.uid = credentials.uid_real();
  core_owner_.file_uid = credentials.uid_filesystem();
  core_owner_.gid = credentials.gid_real();
  core_owner_.signal = WTERMSIG(status);
  if (working_directory_.valid()) {
    core_owner_.directory = working_directory_.get();
  }
  auto renamed = rename_incomplete_core(core_owner_, FileUser(credentials, false));
  log::warn(
      "process {}: its core dump lacks {} pages, which it was owed and which are zeros there; "
      "{}",
      noted_.command(), core_.lacks_pages,
      renamed ? "the file is " + *renamed + " now" : renamed.error().message());
  core_.file = renamed ? std::move(*renamed) : std::string();
}

}  // namespace migrate
