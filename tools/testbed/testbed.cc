#include "tools/testbed/testbed.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "tools/testbed/groups.h"
#include "tools/testbed/keys.h"
#include "tools/testbed/namespaces.h"
#include "tools/testbed/network.h"
#include "tools/testbed/processes.h"

namespace migrate::testbed {
namespace {

constexpr const char* kTestbeds = "/run/migrate-testbed";
constexpr std::size_t kMaximalNameLength = 32;
constexpr std::chrono::milliseconds kEndPatience{2000};
constexpr int kDirectoryAttempts = 100;

bool is_plain(const std::string& name) {
  return !name.empty() && name.size() <= kMaximalNameLength &&
         std::all_of(name.begin(), name.end(), [](char letter) {
           return (letter >= 'a' && letter <= 'z') || (letter >= 'A' && letter <= 'Z') ||
                  (letter >= '0' && letter <= '9') || letter == '-' || letter == '_';
         });
}

Result<std::string> real_path(const std::string& path) {
  std::error_code error;
  const auto real = std::filesystem::canonical(path, error);
  if (error) {
    return fail(system_error_from(error.value(), "find", path));
  }
  return real.string();
}

/// `path` in full, if an overlay can be laid over it.
Result<std::string> overlay_folder(const std::string& path) {
  const std::string real = MIGRATE_TRY(real_path(path));
  for (const char* taken : {"/run", "/tmp", "/proc", "/sys", "/dev"}) {
    if (real == "/" || real == taken || real.starts_with(std::string(taken) + "/")) {
      return fail(make_error(ErrorCode::kInvalid, "lay an overlay", real,
                             "choose a folder other than / and outside /run /tmp /proc /sys /dev"));
    }
  }
  if (real.find_first_of(",:\\") != std::string::npos) {
    return fail(make_error(ErrorCode::kInvalid, "lay an overlay", real,
                           "choose a folder without , : and \\ in its path"));
  }
  return real;
}

Result<void> create_file(const std::string& path, const std::string& content) {
  const UniqueFd file = MIGRATE_TRY(open_file(path, O_WRONLY | O_CREAT | O_EXCL, 0644));
  return write_all(file.get(), std::as_bytes(std::span(content)));
}

}  // namespace

Testbed::Testbed(std::string name)
    : name_(std::move(name)), directory_(fmt::format("{}/{}", kTestbeds, name_)) {}

Result<Testbed> Testbed::create(const std::string& name) {
  if (!is_plain(name)) {
    return fail(make_error(ErrorCode::kInvalid, "name a testbed", fmt::format("'{}'", name),
                           "use 1 to 32 letters, digits, - and _"));
  }
  return Testbed(name);
}

Result<void> Testbed::write_files(const std::vector<Host>& hosts,
                                  const DaemonSettings& daemon) const {
  std::string table = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n";
  for (const Host& host : hosts) {
    table += fmt::format("{} {}\n", host.address, host.name);
  }
  MIGRATE_TRY(create_file(directory_ + "/hosts", table));
  const nlohmann::json settings{{"migrated", daemon.program},
                                {"tls", daemon.tls},
                                {"supervise", daemon.supervise},
                                {"arguments", daemon.arguments}};
  return create_file(directory_ + "/daemon.json", settings.dump() + "\n");
}

Result<void> Testbed::build(const UpOptions& options) {
  // A mount of its own without propagation: namespace files can be mounted only on such a one, and
  // taking it away takes everything in it away.
  MIGRATE_TRY(mount_at("migrate-testbed", directory_, "tmpfs", 0, "mode=0755"));
  MIGRATE_TRY(mount_at("none", directory_, nullptr, MS_PRIVATE));
  std::vector<Host> hosts;
  hosts.reserve(static_cast<std::size_t>(options.host_count));
  for (int index = 0; index < options.host_count; ++index) {
    hosts.push_back(Host::at(directory_, index));
  }
  MIGRATE_TRY(write_files(hosts, options.daemon));
  HostView view{kTestbeds, directory_ + "/hosts", {}, {}, {}};
  for (const std::string& path : options.overlays) {
    view.overlays.push_back(MIGRATE_TRY(overlay_folder(path)));
  }
  for (const std::string& path : options.shares) {
    view.shares.push_back(MIGRATE_TRY(real_path(path)));
  }
  const std::string bridge = directory_ + "/bridge";
  MIGRATE_TRY(make_directories(bridge));
  MIGRATE_TRY(create_namespaces(CLONE_NEWNET, bridge, [] { return Result<void>(); }));
  for (const Host& host : hosts) {
    MIGRATE_TRY(make_directories(host.state_path()));
    HostLimits limits{.groups = options.groups, .processors = {}};
    if (!options.processors.empty()) {
      limits.processors = options.processors[static_cast<std::size_t>(&host - hosts.data())];
    }
    if (limits.groups || limits.processors) {
      view.groups = MIGRATE_TRY(make_groups(host, name_, limits));
    }
    MIGRATE_TRY(create_host(host, view));
  }
  MIGRATE_TRY(connect_hosts(bridge, hosts));
  if (options.daemon.program.empty()) {
    return {};
  }
  if (options.daemon.tls) {
    MIGRATE_TRY(make_keys(options.migratectl, directory_ + "/keys", hosts));
  }
  std::vector<pid_t> pids;
  pids.reserve(hosts.size());
  for (const Host& host : hosts) {
    pids.push_back(MIGRATE_TRY(start_daemon(host, options.daemon)));
  }
  for (std::size_t index = 0; index < hosts.size(); ++index) {
    MIGRATE_TRY(await_daemon(hosts[index], pids[index]));
  }
  return {};
}

Result<void> Testbed::up(const UpOptions& options) {
  int made = -1;
  for (int attempt = 0; made != 0 && attempt < kDirectoryAttempts; ++attempt) {
    MIGRATE_TRY(make_directories(kTestbeds));
    made = ::mkdir(directory_.c_str(), 0755);
    if (made != 0 && errno != ENOENT) {  // The last other testbed took the folder with it.
      break;
    }
  }
  if (made != 0) {
    if (errno == EEXIST) {
      return fail(make_error(ErrorCode::kRefused, "bring up",
                             fmt::format("testbed '{}' exists already", name_),
                             fmt::format("run `testbed --name {} down` first", name_)));
    }
    return fail(system_error("make directory", directory_, "run as root"));
  }
  auto built = build(options);
  if (!built) {
    (void)down();  // The first failure is the one to tell.
  }
  return built;
}

Result<void> Testbed::down() {
  std::vector<NamespaceId> ids;
  for (const std::string& name : list_directory(directory_).value_or(std::vector<std::string>())) {
    for (const char* kind : {"net", "mnt", "uts"}) {
      const auto id = namespace_id(fmt::format("{}/{}/{}", directory_, name, kind));
      const auto own = namespace_id(fmt::format("/proc/self/ns/{}", kind));
      if (id && own && *id != *own) {
        ids.push_back(*id);
      }
    }
  }
  MIGRATE_TRY(end_processes(ids, kEndPatience));
  for (int index = 0; index < kMaximalHosts; ++index) {
    remove_groups(Host::at(directory_, index));
  }
  while (::umount2(directory_.c_str(), MNT_DETACH) == 0) {
  }
  if (errno != EINVAL && errno != ENOENT) {
    return fail(system_error("unmount", directory_, "run as root"));
  }
  if (::rmdir(directory_.c_str()) != 0 && errno != ENOENT) {
    return fail(system_error("remove", directory_));
  }
  ::rmdir(kTestbeds);  // Stays while it holds another testbed.
  return {};
}

Result<std::vector<Host>> Testbed::hosts() const {
  if (::access(directory_.c_str(), F_OK) != 0) {
    return fail(make_error(ErrorCode::kNotFound, "find", fmt::format("testbed '{}'", name_),
                           fmt::format("run `testbed --name {} up`", name_)));
  }
  std::vector<Host> found;
  for (int index = 0; index < kMaximalHosts; ++index) {
    Host host = Host::at(directory_, index);
    if (namespace_id(host.network_path()) && namespace_id(host.directory + "/mnt")) {
      found.push_back(std::move(host));
    }
  }
  return found;
}

Result<std::vector<HostStatus>> Testbed::list() const {
  std::vector<HostStatus> lines;
  for (const Host& host : MIGRATE_TRY(hosts())) {
    const NamespaceId network = MIGRATE_TRY(namespace_id(host.network_path()));
    const NamespaceId name = MIGRATE_TRY(namespace_id(host.directory + "/uts"));
    lines.push_back(
        {host, daemon_pid(host), processes_in({network, name}).size(), processors_of(host)});
  }
  return lines;
}

Result<Host> Testbed::find_host(const std::string& host_name) const {
  std::string known;
  for (const Host& host : MIGRATE_TRY(hosts())) {
    if (host.name == host_name) {
      return host;
    }
    known += " " + host.name;
  }
  return fail(make_error(ErrorCode::kNotFound, "find",
                         fmt::format("host '{}' of testbed '{}'", host_name, name_),
                         fmt::format("its hosts are:{}", known)));
}

Result<void> Testbed::restart_daemon(const Host& host) const {
  const auto settings = nlohmann::json::parse(MIGRATE_TRY(read_file(directory_ + "/daemon.json")),
                                              nullptr, /*allow_exceptions=*/false);
  DaemonSettings daemon;
  if (settings.is_object()) {
    daemon.program = settings.value("migrated", "");
    daemon.tls = settings.value("tls", false);
    daemon.supervise = settings.value("supervise", false);
    daemon.arguments = settings.value("arguments", std::vector<std::string>());
  }
  if (daemon.program.empty()) {
    return fail(make_error(ErrorCode::kRefused, "restart", "testbed '" + name_ + "' has no daemons",
                           "bring it up without --no-daemon"));
  }
  MIGRATE_TRY(stop_daemon(host, SIGTERM));
  return await_daemon(host, MIGRATE_TRY(start_daemon(host, daemon)));
}

}  // namespace migrate::testbed
