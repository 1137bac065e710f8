#include "libmigrate/guest/core_watch.h"

#include <fcntl.h>
#include <sys/wait.h>

#include <sstream>
#include <string>

#include "base/file.h"
#include "base/log.h"
#include "libmigrate/proc/proc_text.h"

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

void CoreWatch::look(pid_t process, bool is_gone) {
  constexpr std::int64_t kLookEveryUs = 2'000;
  if (has_execed_ || clock_() < next_look_us_) {
    return;
  }
  next_look_us_ = clock_() + kLookEveryUs;
  const std::string directory = "/proc/" + std::to_string(process);
  const std::string stack = first_stack(process);
  if (stack.empty() || stack == "0") {
    return;  // It has given up its memory: it is ending.
  }
  first_stack_ = first_stack_.empty() ? stack : first_stack_;
  if (is_gone || stack != first_stack_) {
    has_execed_ = true;
    return;
  }
  if (owner_.inner_pid == 0) {
    owner_.inner_pid = inner_thread_id(process, process).value_or(0);
  }
  if (auto opened = open_file(directory + "/cwd", O_PATH | O_DIRECTORY | O_CLOEXEC)) {
    working_directory_ = std::move(*opened);
  }
  if (const auto command = read_file(directory + "/comm"); command && !command->empty()) {
    owner_.command = command->substr(0, command->size() - 1);
  }
  if (auto program = read_link(directory + "/exe")) {
    owner_.program = std::move(*program);
  }
}

IncompleteCore CoreWatch::note_end(pid_t process, int status, std::uint64_t owed_pages,
                                   const wire::Credentials& credentials, const std::string& name) {
  if (!WIFSIGNALED(status) || !WCOREDUMP(status) || has_execed_ || owed_pages == 0) {
    return {};
  }
  owner_.pid = process;
  owner_.uid = credentials.uid_real();
  owner_.file_uid = credentials.uid_filesystem();
  owner_.gid = credentials.gid_real();
  owner_.signal = WTERMSIG(status);
  if (working_directory_.valid()) {
    owner_.directory = working_directory_.get();
  }
  auto renamed = rename_incomplete_core(owner_, FileUser(credentials, false));
  log::warn(
      "process {}: its core dump lacks {} pages, which it was owed and which are zeros there; {}",
      name, owed_pages, renamed ? "the file is " + *renamed + " now" : renamed.error().message());
  return {owed_pages, renamed ? std::move(*renamed) : std::string()};
}

}  // namespace migrate
