#include "tools/migrated/privileges.h"

#include <cap-ng.h>
#include <sys/prctl.h>

#include <algorithm>
#include <array>
#include <cstdlib>

#include "base/file.h"
#include "base/log.h"

namespace migrate {
namespace {

#ifndef CAP_CHECKPOINT_RESTORE
#define CAP_CHECKPOINT_RESTORE 40  // Linux 5.9
#endif

constexpr std::array kNeeded{
    CAP_SYS_PTRACE,          // to trace processes of every user, and read their memory
    CAP_SYS_ADMIN,           // namespaces and mounts of cells; userfaultfd; page maps
    CAP_CHECKPOINT_RESTORE,  // process ids inside cells
    CAP_SYS_TIME,            // offsets of their clocks
    CAP_SYS_RESOURCE,        // a process's limits, memory map and pipe sizes
    CAP_SETUID,              // a process's user,
    CAP_SETGID,              // groups
    CAP_SETPCAP,             // and bounding set
    CAP_DAC_OVERRIDE,        // /proc files and sockets of other users
    CAP_DAC_READ_SEARCH,     // identities of files that only their users can reach
    CAP_KILL,                // signals passed on to a process
    CAP_SYS_NICE,            // its priority and processors
    CAP_IPC_LOCK,            // its locked memory
    CAP_NET_ADMIN,           // large buffers of bulk connections, networks of cells
    CAP_NET_RAW,             // packets for sockets in cells
    CAP_NET_BIND_SERVICE,    // ports by which other daemons tell it from users of its host
};

}  // namespace

Result<void> protect_memory() {
  if (::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) {
    return fail(system_error("keep the daemon's memory out of core files"));
  }
  return {};
}

Result<void> drop_capabilities() {
  if (::capng_get_caps_process() != 0) {
    return fail(make_error(ErrorCode::kSystem, "read the daemon's capabilities"));
  }
  constexpr int kLast = 63;
  for (int capability = 0; capability <= kLast; ++capability) {
    if (std::find(kNeeded.begin(), kNeeded.end(), capability) == kNeeded.end() &&
        ::capng_have_capability(CAPNG_PERMITTED, static_cast<unsigned>(capability)) != 0) {
      ::capng_update(CAPNG_DROP,
                     static_cast<capng_type_t>(CAPNG_EFFECTIVE | CAPNG_PERMITTED |
                                               CAPNG_INHERITABLE | CAPNG_AMBIENT),
                     static_cast<unsigned>(capability));
    }
  }
  if (::capng_apply(CAPNG_SELECT_CAPS) != 0) {
    return fail(system_error("drop capabilities"));
  }
  return {};
}

void ask_to_be_spared() {
  constexpr const char* kPath = "/proc/self/oom_score_adj";
  constexpr int kSpared = -900;
  if (std::atoi(read_file(kPath).value_or("0").c_str()) <= kSpared) {
    return;
  }
  if (const auto asked = write_file(kPath, std::to_string(kSpared)); !asked) {
    log::info("the kernel may end the daemon or a worker when memory runs out: {}",
              asked.error().message());
  }
}

}  // namespace migrate
