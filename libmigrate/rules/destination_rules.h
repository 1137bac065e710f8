#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "libmigrate/proto/image.pb.h"

namespace migrate {

/// Every reason why a process described by `image`, coming from a host with the facts `source`,
/// cannot run on this host, whose facts are `own` (see host_facts()); empty if it can.
/// Looks at this host's files as the calling process sees them, so call it in the mount namespace
/// that the process is to have, and with the capabilities that the restorer will have. Blocks:
/// reads files, whole ones where only their content can tell whether they are the same.
std::vector<wire::Refusal> check_against_host(const wire::Image& image,
                                              const wire::HostFacts& source,
                                              const wire::HostFacts& own);

/// What of a process's program this host has not, or not the same.
struct MissingFiles {
  std::vector<std::uint32_t> mapped;  ///< Into Objects.mapped_files: of private mappings.
  bool executable = false;
};
/// Finds that; `may_open` says whether its user may open what is there. Blocks as
/// check_against_host().
MissingFiles find_missing_files(const wire::Image& image, bool same_kernel,
                                const std::function<bool(const wire::FileIdentity&)>& may_open);

/// Refuses (code MEMORY) what would need more than `available_bytes`. `image_bytes` is what the
/// process holds at the source; the image itself does not say how much of its mappings exists.
std::vector<wire::Refusal> check_memory(std::uint64_t image_bytes, std::uint64_t available_bytes);

}  // namespace migrate
