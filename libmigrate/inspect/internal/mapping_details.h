#pragma once

#include <sys/types.h>

#include <optional>
#include <vector>

#include "libmigrate/proc/mapping_list.h"
#include "libmigrate/proc/proc_text.h"

namespace migrate::inspect {

/// What smaps would show of mappings, of which maps shows less.
struct MappingDetails {
  std::vector<MapsEntry> entries;  ///< With flags and protection keys.
  bool may_have_policies = true;   ///< Memory policies, which numa_maps tells.
};

/// Makes it quick to ask for details, in this process and those that it forks: learns from mappings
/// of its own which VmFlags smaps shows for what the kernel notes. Nothing if the kernel does not
/// let us. Takes some milliseconds.
void learn_mapping_details();

/// The details of the mappings `entries` of the process, as maps showed them, without looking at
/// any page table. Nothing where that cannot be said for certain: flags that were not learned,
/// mappings that have changed meanwhile, a kernel that does not tell. Then smaps is to be read.
std::optional<MappingDetails> details_of(const MappingList& list, pid_t pid,
                                         const std::vector<MapsEntry>& entries);

}  // namespace migrate::inspect
