#include "tools/testbed/host.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "base/file.h"
#include "base/unique_fd.h"
#include "tools/testbed/namespaces.h"

namespace migrate::testbed {
namespace {

constexpr const char* kDaemonState = "/var/lib/migrate";
constexpr const char* kDaemonRun = "/run/migrate";

bool is_private(const std::string& path) {
  return path.starts_with("/tmp/") || path.starts_with("/run/");
}

/// Lays an overlay over `folder`: reads come from the machine, writes stay in the testbed.
Result<void> mount_overlay(const std::string& folder, const std::string& store) {
  MIGRATE_TRY(make_directories(store + "/upper"));
  MIGRATE_TRY(make_directories(store + "/work"));
  // The upper folder is what the merged one shows: owner and mode are to be those of below.
  struct stat status {};
  if (::stat(folder.c_str(), &status) != 0 ||
      ::chown((store + "/upper").c_str(), status.st_uid, status.st_gid) != 0 ||
      ::chmod((store + "/upper").c_str(), status.st_mode & 07777U) != 0) {
    return fail(system_error("prepare an overlay", folder));
  }
  return mount_at("overlay", folder, "overlay", 0,
                  fmt::format("lowerdir={0},upperdir={1}/upper,workdir={1}/work", folder, store));
}

Result<void> mount_overlays(const Host& host, const HostView& view) {
  for (std::size_t index = 0; index < view.overlays.size(); ++index) {
    MIGRATE_TRY(
        mount_overlay(view.overlays[index], fmt::format("{}/overlay/{}", host.directory, index)));
  }
  return {};
}

/// This mount namespace is to hold no copy of any testbed's mounts, which would keep them alive.
void forget_testbeds(const HostView& view) {
  for (const std::string& name :
       list_directory(view.testbeds_directory).value_or(std::vector<std::string>())) {
    ::umount2(fmt::format("{}/{}", view.testbeds_directory, name).c_str(), MNT_DETACH);
  }
}

/// The hierarchy itself is taken away: whoever reads the table of mounts is to find one of it.
Result<void> place_groups(const std::vector<GroupView>& groups) {
  for (const GroupView& each : groups) {
    const UniqueFd group = MIGRATE_TRY(clone_mount(each.group));
    if (::umount2(each.mount.c_str(), MNT_DETACH) != 0) {
      return fail(system_error("unmount", each.mount));
    }
    MIGRATE_TRY(place_mount(group, each.mount));
  }
  return {};
}

/// A file or folder of the machine's /tmp or /run, taken before these are hidden.
struct Share {
  std::string path;
  bool is_folder;
  UniqueFd mount;
};

Result<void> place_shares(const std::vector<Share>& shares) {
  for (const Share& share : shares) {
    const auto parent = std::filesystem::path(share.path).parent_path().string();
    MIGRATE_TRY(make_directories(share.is_folder ? share.path : parent));
    if (!share.is_folder) {
      MIGRATE_TRY(open_file(share.path, O_WRONLY | O_CREAT));
    }
    MIGRATE_TRY(place_mount(share.mount, share.path));
  }
  return {};
}

Result<void> set_up_host(const Host& host, const HostView& view) {
  MIGRATE_TRY(mount_at("none", "/", nullptr, MS_REC | MS_PRIVATE));
  if (::sethostname(host.name.c_str(), host.name.size()) != 0) {
    return fail(system_error("sethostname", host.name));
  }
  std::vector<Share> shares;
  for (const std::string& path : view.shares) {
    if (is_private(path)) {
      shares.push_back({path, std::filesystem::is_directory(path), MIGRATE_TRY(clone_mount(path))});
    }
  }
  MIGRATE_TRY(place_groups(view.groups));
  MIGRATE_TRY(mount_overlays(host, view));
  MIGRATE_TRY(make_directories(kDaemonState));
  MIGRATE_TRY(mount_at(host.state_path().c_str(), kDaemonState, nullptr, MS_BIND));
  MIGRATE_TRY(mount_at(view.hosts_file.c_str(), "/etc/hosts", nullptr, MS_BIND));
  forget_testbeds(view);
  MIGRATE_TRY(mount_at("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755"));
  MIGRATE_TRY(mount_at("tmpfs", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777"));
  MIGRATE_TRY(make_directories(kDaemonRun));
  return place_shares(shares);
}

}  // namespace

Host Host::at(const std::string& testbed_directory, int index) {
  const std::string name = fmt::format("host{}", static_cast<char>('A' + index));
  return {name, fmt::format("10.213.0.{}", index + 1),
          fmt::format("{}/{}", testbed_directory, name)};
}

Result<void> create_host(const Host& host, const HostView& view) {
  return create_namespaces(CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWUTS, host.directory,
                           [&] { return set_up_host(host, view); });
}

}  // namespace migrate::testbed
