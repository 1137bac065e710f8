#pragma once

#include <functional>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace migrate::testbed {

/// Makes new namespaces (`flags`: CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWUTS), runs `setup` inside
/// them, and keeps them by bind mounts at `directory`/{net,mnt,uts}, which live on without any
/// process. `directory` must exist on a mount without propagation. Blocks; forks a child for it.
/// Errors: what a call or `setup` failed with; the namespaces are then gone, and mount points left
/// in `directory` go with it.
Result<void> create_namespaces(int flags, const std::string& directory,
                               const std::function<Result<void>()>& setup);

/// Moves the calling process into those of `directory`/{net,mnt,uts} that exist.
/// The working directory becomes the root. The process must have one thread.
Result<void> enter_namespaces(const std::string& directory);

/// mount(2) with an Error that names both ends.
Result<void> mount_at(const char* source, const std::string& target, const char* type,
                      unsigned long flags, const std::string& options = {});

/// Makes a directory and those above it. Success if it is there already.
Result<void> make_directories(const std::string& path);

/// A private copy of the mounts at `path` that belongs to no place yet (open_tree, Linux 5.2).
Result<UniqueFd> clone_mount(const std::string& path);

/// Mounts what clone_mount() gave at `target`, which must exist.
Result<void> place_mount(const UniqueFd& mount, const std::string& target);

}  // namespace migrate::testbed
