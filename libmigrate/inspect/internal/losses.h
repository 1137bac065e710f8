#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "libmigrate/inspect/internal/process_view.h"
#include "libmigrate/proc/thread_ids.h"

namespace migrate::inspect {

/// The process of which is asked what it would lose; all is borrowed.
struct LossView {
  const ProcessView& process;  ///< With its status text.
  const ThreadIds& threads;
  const wire::Image& image;  ///< Its descriptors.
  Findings& findings;        ///< Keeps what costs much to find.
  bool frozen;               ///< What grows with memory is as the running process had it.
};

// How the table of states finds what a process would lose; each gives what it has of that kind.
// What the kernel does not show counts as absent, since whoever may not look into a process is
// refused before.

/// Mitigations of speculation other than our own process has them.
std::vector<std::string> find_speculation(const LossView& view);
/// Nodes with memory that it may not use.
std::vector<std::string> find_memory_nodes(const LossView& view);
/// Limits of the control groups that it is in, of the kinds that are not carried.
std::vector<std::string> find_group_limits(const LossView& view);
/// A group of resctrl other than the first.
std::vector<std::string> find_resource_group(const LossView& view);
/// Nothing: the destination tells whether it is lost (loss_there()).
std::vector<std::string> find_what_is_told_there(const LossView& view);
/// Memory policies, with the number of mappings that have each.
std::vector<std::string> find_memory_policies(const LossView& view);
/// Threads with PR_SET_IO_FLUSHER.
std::vector<std::string> find_io_flusher(const LossView& view);
/// Threads of ordinary policies without timer slack.
std::vector<std::string> find_timer_slack(const LossView& view);
/// Descriptors, directories excepted, with somebody to signal or another signal.
std::vector<std::string> find_descriptor_owners(const LossView& view);
/// Directories with somebody to signal, as F_NOTIFY makes it.
std::vector<std::string> find_directory_owners(const LossView& view);
std::vector<std::string> find_fired_watches(const LossView& view);
std::vector<std::string> find_named_pipes(const LossView& view);
std::vector<std::string> find_deleted_executable(const LossView& view);
std::vector<std::string> find_files_as_memory(const LossView& view);
std::vector<std::string> find_huge_pages(const LossView& view);
/// A process group that another process leads.
std::vector<std::string> find_process_group(const LossView& view);
std::vector<std::string> find_terminal(const LossView& view);

// Parts of these.

/// The policies other than "default" in a text of numa_maps, with the number of their mappings.
std::vector<std::string> policies_in(std::string_view numa_maps);

/// Whether `list` ("0-2,5") has all of `wanted`.
bool list_has_all(std::string_view list, std::string_view wanted);

}  // namespace migrate::inspect
