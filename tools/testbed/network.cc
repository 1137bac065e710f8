#include "tools/testbed/network.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "base/unique_fd.h"

namespace migrate::testbed {
namespace {

constexpr int kPrefixBits = 24;

Result<UniqueFd> memory_file(const std::string& content) {
  UniqueFd file(::memfd_create("testbed", MFD_CLOEXEC));
  if (!file.valid()) {
    return fail(system_error("memfd_create"));
  }
  MIGRATE_TRY(write_all(file.get(), std::as_bytes(std::span(content))));
  if (::lseek(file.get(), 0, SEEK_SET) < 0) {
    return fail(system_error("lseek"));
  }
  return file;
}

/// Runs `ip -batch` with `commands` in the network namespace at `path`.
Result<void> run_ip(const std::string& path, const std::string& commands) {
  const UniqueFd network = MIGRATE_TRY(open_file(path, O_RDONLY));
  const UniqueFd input = MIGRATE_TRY(memory_file(commands));
  const UniqueFd output = MIGRATE_TRY(memory_file(""));
  const pid_t child = ::fork();
  if (child < 0) {
    return fail(system_error("fork"));
  }
  if (child == 0) {
    if (::setns(network.get(), CLONE_NEWNET) == 0 && ::dup2(input.get(), STDIN_FILENO) >= 0 &&
        ::dup2(output.get(), STDOUT_FILENO) >= 0 && ::dup2(output.get(), STDERR_FILENO) >= 0) {
      ::execlp("ip", "ip", "-batch", "-", nullptr);
    }
    ::_exit(127);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
    return {};
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 127) {
    return fail(make_error(ErrorCode::kUnsupported, "run ip", path, "install iproute2"));
  }
  (void)::lseek(output.get(), 0, SEEK_SET);
  return fail(make_error(ErrorCode::kSystem, "set up the network",
                         fmt::format("{}: {}", path, read_all(output.get(), "read").value_or("")),
                         "the kernel needs veth and bridge devices"));
}

}  // namespace

Result<void> connect_hosts(const std::string& bridge_directory, const std::vector<Host>& hosts) {
  std::string bridge = "link set lo up\nlink add bridge0 type bridge\nlink set bridge0 up\n";
  for (const Host& host : hosts) {
    bridge += fmt::format(
        "link add {0} type veth peer name eth0 netns {1}\n"
        "link set {0} master bridge0 up\n",
        host.name, host.network_path());
  }
  MIGRATE_TRY(run_ip(bridge_directory + "/net", bridge));
  for (const Host& host : hosts) {
    MIGRATE_TRY(run_ip(host.network_path(),
                       fmt::format("link set lo up\naddr add {}/{} dev eth0\nlink set eth0 up\n",
                                   host.address, kPrefixBits)));
  }
  return {};
}

}  // namespace migrate::testbed
