#include "tools/testbed/namespaces.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <filesystem>
#include <vector>

#include "base/file.h"

namespace migrate::testbed {
namespace {

struct Kind {
  int flag;
  const char* name;
};
// The mount namespace comes last: entering it changes what the other paths mean.
constexpr std::array<Kind, 3> kKinds{
    {{CLONE_NEWNET, "net"}, {CLONE_NEWUTS, "uts"}, {CLONE_NEWNS, "mnt"}}};
constexpr std::string_view kReady = "ready";

/// The child's part of create_namespaces(): tells over `channel` how it went, then holds the
/// namespaces until the parent hangs up.
[[noreturn]] void hold_namespaces(int flags, int channel,
                                  const std::function<Result<void>()>& setup) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  Result<void> done;
  if (::unshare(flags) != 0) {
    done = fail(system_error("make namespaces", "unshare", "run as root with CAP_SYS_ADMIN"));
  } else {
    done = setup();
  }
  const std::string text = done ? std::string(kReady) : done.error().message();
  (void)write_all(channel, std::as_bytes(std::span(text)));
  ::shutdown(channel, SHUT_WR);
  (void)read_all(channel, "wait for the parent");
  ::_exit(0);
}

Result<void> keep_namespaces(int flags, const std::string& directory, pid_t holder) {
  for (const Kind& kind : kKinds) {
    if ((flags & kind.flag) == 0) {
      continue;
    }
    const std::string target = fmt::format("{}/{}", directory, kind.name);
    MIGRATE_TRY(open_file(target, O_WRONLY | O_CREAT | O_EXCL));
    const std::string source = fmt::format("/proc/{}/ns/{}", holder, kind.name);
    MIGRATE_TRY(mount_at(source.c_str(), target, nullptr, MS_BIND));
  }
  return {};
}

}  // namespace

Result<void> create_namespaces(int flags, const std::string& directory,
                               const std::function<Result<void>()>& setup) {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    return fail(system_error("socketpair"));
  }
  UniqueFd ours(ends[0]);
  UniqueFd theirs(ends[1]);
  const pid_t holder = ::fork();
  if (holder < 0) {
    return fail(system_error("fork"));
  }
  if (holder == 0) {
    ours.reset();
    hold_namespaces(flags, theirs.get(), setup);
  }
  theirs.reset();
  const auto report = read_all(ours.get(), "read the report of the namespaces' holder");
  Result<void> done;
  if (!report) {
    done = fail(report.error());
  } else if (*report != kReady) {
    done = fail(make_error(ErrorCode::kSystem, "set up", directory + ": " + *report));
  } else {
    done = keep_namespaces(flags, directory, holder);
  }
  ours.reset();
  ::waitpid(holder, nullptr, 0);
  return done;
}

Result<void> enter_namespaces(const std::string& directory) {
  std::vector<UniqueFd> files;
  for (const Kind& kind : kKinds) {
    const std::string path = fmt::format("{}/{}", directory, kind.name);
    if (::access(path.c_str(), F_OK) == 0) {
      files.push_back(MIGRATE_TRY(open_file(path, O_RDONLY)));
    }
  }
  for (const UniqueFd& file : files) {
    if (::setns(file.get(), 0) != 0) {
      return fail(
          system_error("enter a namespace", directory, "run `testbed down`, then `testbed up`"));
    }
  }
  return {};
}

Result<void> mount_at(const char* source, const std::string& target, const char* type,
                      unsigned long flags, const std::string& options) {
  if (::mount(source, target.c_str(), type, flags, options.empty() ? nullptr : options.c_str()) !=
      0) {
    return fail(system_error("mount", fmt::format("{} on {}", source, target)));
  }
  return {};
}

Result<void> make_directories(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) {
    return fail(system_error_from(error.value(), "make directory", path));
  }
  return {};
}

Result<UniqueFd> clone_mount(const std::string& path) {
  const int fd =
      ::open_tree(AT_FDCWD, path.c_str(),
                  OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | static_cast<unsigned>(AT_RECURSIVE));
  if (fd < 0) {
    return fail(system_error("open_tree", path));
  }
  return UniqueFd(fd);
}

Result<void> place_mount(const UniqueFd& mount, const std::string& target) {
  if (::move_mount(mount.get(), "", AT_FDCWD, target.c_str(), MOVE_MOUNT_F_EMPTY_PATH) != 0) {
    return fail(system_error("move_mount", target));
  }
  return {};
}

}  // namespace migrate::testbed
