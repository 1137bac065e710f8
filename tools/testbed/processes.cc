#include "tools/testbed/processes.h"

#include <fmt/format.h>
#include <linux/magic.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <csignal>
#include <optional>
#include <set>
#include <thread>

#include "base/file.h"

namespace migrate::testbed {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::milliseconds kPollInterval{10};
constexpr std::chrono::seconds kKillPatience{10};

std::optional<NamespaceId> stat_namespace(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) {
    return std::nullopt;
  }
  return NamespaceId{status.st_dev, status.st_ino};
}

bool names_one_of(const std::string& path, const std::vector<NamespaceId>& ids) {
  const auto id = stat_namespace(path);
  return id && std::find(ids.begin(), ids.end(), *id) != ids.end();
}

// What is in a cell has networks and mounts of its own, and the host's name.
bool is_in(const std::string& directory, const std::vector<NamespaceId>& ids) {
  return names_one_of(directory + "/ns/net", ids) || names_one_of(directory + "/ns/mnt", ids) ||
         names_one_of(directory + "/ns/uts", ids);
}

/// A process whose first thread has ended shows its namespaces in its other threads only.
bool process_is_in(const std::string& directory, const std::vector<NamespaceId>& ids) {
  if (is_in(directory, ids)) {
    return true;
  }
  if (stat_namespace(directory + "/ns/net")) {
    return false;
  }
  const auto tasks = list_directory(directory + "/task");
  return tasks && std::any_of(tasks->begin(), tasks->end(), [&](const std::string& task) {
           return is_in(directory + "/task/" + task, ids);
         });
}

}  // namespace

Result<NamespaceId> namespace_id(const std::string& path) {
  struct statfs file_system {};
  if (::statfs(path.c_str(), &file_system) != 0) {
    return fail(system_error("find the namespace", path));
  }
  const auto id = stat_namespace(path);
  if (file_system.f_type != NSFS_MAGIC || !id) {
    return fail(make_error(ErrorCode::kInvalid, "find the namespace", path));
  }
  return *id;
}

std::vector<pid_t> processes_in(const std::vector<NamespaceId>& ids) {
  std::vector<pid_t> found;
  const auto names = list_directory("/proc");
  if (ids.empty() || !names) {
    return found;
  }
  for (const std::string& name : *names) {
    pid_t pid = 0;
    const auto parsed = std::from_chars(name.data(), name.data() + name.size(), pid);
    if (parsed.ec != std::errc() || parsed.ptr != name.data() + name.size() || pid == ::getpid()) {
      continue;
    }
    if (process_is_in("/proc/" + name, ids)) {
      found.push_back(pid);
    }
  }
  std::sort(found.begin(), found.end());
  return found;
}

bool is_running(pid_t pid) {
  const auto stat = read_file(fmt::format("/proc/{}/stat", pid));
  if (!stat) {
    return false;
  }
  // The state follows the name, which is in brackets and may itself hold brackets and spaces.
  const std::size_t bracket = stat->rfind(')');
  return bracket != std::string::npos && bracket + 2 < stat->size() &&
         (*stat)[bracket + 2] != 'Z' && (*stat)[bracket + 2] != 'X';
}

Result<void> end_processes(const std::vector<NamespaceId>& ids,
                           std::chrono::milliseconds patience) {
  const auto start = Clock::now();
  std::set<pid_t> asked;
  for (;;) {
    const std::vector<pid_t> pids = processes_in(ids);
    if (pids.empty()) {
      return {};
    }
    const auto waited = Clock::now() - start;
    if (waited > patience + kKillPatience) {
      return fail(make_error(ErrorCode::kSystem, "end processes of the testbed",
                             fmt::format("pid {}", fmt::join(pids, " ")),
                             "see /proc/PID/stack for what they wait for"));
    }
    for (const pid_t pid : pids) {
      const bool kill = waited > patience;
      if (!kill && !asked.insert(pid).second) {
        continue;
      }
      const auto process = ProcessIdentity::of(pid).open();
      // Looked at again: the pid may have gone to another process before it was opened.
      if (process && process_is_in(fmt::format("/proc/{}", pid), ids)) {
        send_signal(process->get(), kill ? SIGKILL : SIGTERM);
      }
    }
    std::this_thread::sleep_for(kPollInterval);
  }
}

Result<void> end_process(const ProcessIdentity& process, int signal,
                         std::chrono::milliseconds patience) {
  const auto start = Clock::now();
  const auto pidfd = process.open();
  if (!pidfd) {
    return pidfd.error().code == ErrorCode::kNotFound ? Result<void>() : fail(pidfd.error());
  }
  send_signal(pidfd->get(), signal);
  // Its pidfd is readable once its last thread has ended, which is when its ports are free; its
  // first thread may long be a zombie then.
  pollfd ended{pidfd->get(), POLLIN, 0};
  while (::poll(&ended, 1, static_cast<int>(kPollInterval.count())) <= 0) {
    const auto waited = Clock::now() - start;
    if (waited > patience + kKillPatience) {
      return fail(
          make_error(ErrorCode::kSystem, "end a process", fmt::format("pid {}", process.pid)));
    }
    if (waited > patience) {
      send_signal(pidfd->get(), SIGKILL);
    }
  }
  return {};
}

}  // namespace migrate::testbed
