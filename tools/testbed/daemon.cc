#include "tools/testbed/daemon.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstring>
#include <thread>

#include "base/file.h"
#include "base/unique_fd.h"
#include "tools/testbed/groups.h"
#include "tools/testbed/keys.h"
#include "tools/testbed/namespaces.h"
#include "tools/testbed/processes.h"

namespace migrate::testbed {
namespace {

constexpr const char* kSocket = "/run/migrate/migrated.sock";
constexpr int kPort = 7070;
constexpr std::chrono::seconds kStartPatience{10};
constexpr std::chrono::milliseconds kStopPatience{2000};
constexpr std::size_t kLogTailBytes = 2000;

std::string log_tail(const Host& host) {
  const std::string log = read_file(host.log_path()).value_or("");
  return log.size() > kLogTailBytes ? log.substr(log.size() - kLogTailBytes) : log;
}

/// What the processes of one daemon have open.
struct DaemonFiles {
  UniqueFd log;
  UniqueFd pid;      ///< Names the daemon; empty once it was ended on purpose.
  UniqueFd failure;  ///< Tells start_daemon() what went wrong; closed when the daemon was executed.
};

bool note_pid(int file, pid_t pid) {
  const std::string line = fmt::format("{}\n", pid);
  return ::ftruncate(file, 0) == 0 &&
         ::pwrite(file, line.data(), line.size(), 0) == static_cast<ssize_t>(line.size());
}

std::optional<pid_t> noted_pid(const std::string& text) {
  pid_t pid = 0;
  return std::from_chars(text.data(), text.data() + text.size(), pid).ec == std::errc()
             ? std::optional(pid)
             : std::nullopt;
}

/// Starts the daemon again, as a child, as often as it ends; does not return in the parent.
void supervise(DaemonFiles& files) {
  constexpr std::chrono::milliseconds kPause{100};
  for (;;) {
    const pid_t daemon = ::fork();
    if (daemon == 0) {
      return;
    }
    files.failure.reset();
    ::waitpid(daemon, nullptr, 0);
    std::array<char, 16> text{};
    const ssize_t length = ::pread(files.pid.get(), text.data(), text.size(), 0);
    if (noted_pid({text.data(), static_cast<std::size_t>(std::max<ssize_t>(length, 0))}) !=
        daemon) {
      ::_exit(0);
    }
    std::this_thread::sleep_for(kPause);
  }
}

/// The child's part of start_daemon(); returns only with what went wrong.
Error become_daemon(const Host& host, const DaemonSettings& settings,
                    const std::vector<std::string>& arguments, DaemonFiles& files) {
  const UniqueFd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  ::setsid();
  if (const auto entered = enter_groups(host, GroupRole::kDaemon); !entered) {
    return entered.error();
  }
  if (const auto entered = enter_namespaces(host.directory); !entered) {
    return entered.error();
  }
  if (::dup2(null.get(), STDIN_FILENO) < 0 || ::dup2(files.log.get(), STDOUT_FILENO) < 0 ||
      ::dup2(files.log.get(), STDERR_FILENO) < 0) {
    return system_error("dup2");
  }
  if (settings.supervise) {
    supervise(files);
  }
  ::unlink(kSocket);
  if (!note_pid(files.pid.get(), ::getpid())) {
    return system_error("write", host.pid_path());
  }
  // Descriptors that testbed inherited without close-on-exec, such as a caller's pipe, would
  // otherwise be held open by the daemon for good.
  ::close_range(STDERR_FILENO + 1, ~0U, CLOSE_RANGE_CLOEXEC);
  std::vector<char*> argv;
  argv.reserve(arguments.size() + 1);
  for (const std::string& argument : arguments) {
    argv.push_back(const_cast<char*>(argument.c_str()));  // execv takes them as not const.
  }
  argv.push_back(nullptr);
  ::execv(argv[0], argv.data());
  return system_error("execute", arguments[0], "give the program with --migrated, or --no-daemon");
}

bool accepts_connections(pid_t pid) {
  const std::string path = fmt::format("/proc/{}/root{}", pid, kSocket);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.c_str(), std::min(path.size(), sizeof(address.sun_path) - 1));
  const UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  return ::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0;
}

}  // namespace

std::optional<pid_t> daemon_pid(const Host& host) {
  const auto text = read_file(host.pid_path());
  const auto home = namespace_id(host.network_path());
  const auto pid = text ? noted_pid(*text) : std::nullopt;
  if (!pid || !home) {
    return std::nullopt;
  }
  // A pid may be reused, but hardly inside the same host.
  const auto current = namespace_id(fmt::format("/proc/{}/ns/net", *pid));
  if (!current || *current != *home || !is_running(*pid)) {
    return std::nullopt;
  }
  return pid;
}

Result<pid_t> start_daemon(const Host& host, const DaemonSettings& settings) {
  std::vector<std::string> arguments{settings.program, "--listen",
                                     fmt::format("tcp://{}:{}", host.address, kPort)};
  // Tests run as root, and so do most of the programs that they move.
  const bool says_whom = std::ranges::any_of(
      settings.arguments, [](const std::string& each) { return each.starts_with("--allow="); });
  if (!says_whom) {
    arguments.insert(arguments.end(), {"--allow=*@*", "--allow=root@*"});
  }
  if (settings.tls) {
    arguments.insert(arguments.end(), {"--keys", kKeysDirectory});
  } else {
    arguments.emplace_back("--insecure");
  }
  if (const std::string rule = rule_for_guests(host); !rule.empty()) {
    arguments.insert(arguments.end(), {"--group-rules", rule});
  }
  arguments.insert(arguments.end(), settings.arguments.begin(), settings.arguments.end());
  DaemonFiles files;
  files.log = MIGRATE_TRY(open_file(host.log_path(), O_WRONLY | O_CREAT | O_APPEND, 0644));
  files.pid = MIGRATE_TRY(open_file(host.pid_path(), O_RDWR | O_CREAT, 0644));
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
    return fail(system_error("pipe"));
  }
  const UniqueFd reader(ends[0]);
  files.failure.reset(ends[1]);
  const pid_t pid = ::fork();
  if (pid < 0) {
    return fail(system_error("fork"));
  }
  if (pid == 0) {
    const std::string message = become_daemon(host, settings, arguments, files).message();
    (void)write_all(files.failure.get(), std::as_bytes(std::span(message)));
    ::_exit(127);
  }
  files.failure.reset();
  const std::string failure = MIGRATE_TRY(read_all(reader.get(), "wait for exec"));
  if (!failure.empty()) {
    ::waitpid(pid, nullptr, 0);
    return fail(make_error(ErrorCode::kSystem, "start migrated", host.name + ": " + failure));
  }
  return noted_pid(MIGRATE_TRY(read_file(host.pid_path()))).value_or(pid);
}

Result<void> await_daemon(const Host& host, pid_t pid) {
  const auto deadline = std::chrono::steady_clock::now() + kStartPatience;
  while (!accepts_connections(pid)) {
    const bool ended = !is_running(pid);
    if (ended || std::chrono::steady_clock::now() > deadline) {
      return fail(make_error(
          ErrorCode::kSystem, "wait for migrated",
          fmt::format("{}: {}; the end of its log:\n{}", host.name,
                      ended ? "it ended" : fmt::format("nobody listens at {} yet", kSocket),
                      log_tail(host))));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return {};
}

Result<void> stop_daemon(const Host& host, int signal) {
  if (const auto pid = daemon_pid(host)) {
    const ProcessIdentity daemon = ProcessIdentity::of(*pid);
    MIGRATE_TRY(open_file(host.pid_path(), O_WRONLY | O_TRUNC));
    return end_process(daemon, signal, kStopPatience);
  }
  return {};
}

}  // namespace migrate::testbed
