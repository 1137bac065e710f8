#include "tools/testbed/keys.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <filesystem>

#include "base/file.h"
#include "base/unique_fd.h"

namespace migrate::testbed {
namespace {

/// Runs a program to its end. Errors: kSystem with what it printed.
Result<void> run_program(const std::vector<std::string>& words) {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
    return fail(system_error("pipe"));
  }
  const UniqueFd reader(ends[0]);
  UniqueFd writer(ends[1]);
  std::vector<char*> argv;
  argv.reserve(words.size() + 1);
  for (const std::string& word : words) {
    argv.push_back(const_cast<char*>(word.c_str()));  // execv takes them as not const.
  }
  argv.push_back(nullptr);
  const pid_t child = ::fork();
  if (child < 0) {
    return fail(system_error("fork"));
  }
  if (child == 0) {
    ::dup2(writer.get(), STDOUT_FILENO);
    ::dup2(writer.get(), STDERR_FILENO);
    ::execv(argv[0], argv.data());
    ::_exit(127);
  }
  writer.reset();
  const std::string output = read_all(reader.get(), "read what it prints").value_or("");
  int status = 0;
  ::waitpid(child, &status, 0);
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    return fail(make_error(ErrorCode::kSystem, "run", words[0] + " " + words[1] + ": " + output));
  }
  return {};
}

Result<void> give_keys(const std::string& directory, const Host& host) {
  const std::string own = host.state_path() + "/keys";
  std::error_code error;
  std::filesystem::create_directory(own, error);
  std::filesystem::permissions(own, std::filesystem::perms::owner_all, error);
  for (const std::string& name : {std::string("ca.crt"), host.name + ".crt", host.name + ".key"}) {
    if (!error) {
      std::filesystem::copy_file(std::filesystem::path(directory) / name,
                                 std::filesystem::path(own) / name, error);
    }
  }
  if (error) {
    return fail(system_error_from(error.value(), "give keys to", host.name));
  }
  return {};
}

}  // namespace

Result<void> make_keys(const std::string& migratectl, const std::string& directory,
                       const std::vector<Host>& hosts) {
  MIGRATE_TRY(run_program({migratectl, "keys", "init", "--dir", directory}));
  for (const Host& host : hosts) {
    MIGRATE_TRY(run_program(
        {migratectl, "keys", "add-host", host.name, "--also", host.address, "--dir", directory}));
    MIGRATE_TRY(give_keys(directory, host));
  }
  return {};
}

}  // namespace migrate::testbed
