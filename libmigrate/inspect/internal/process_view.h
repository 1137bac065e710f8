#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/unique_fd.h"
#include "libmigrate/image/refusal.h"
#include "libmigrate/inspect/process_inspector.h"
#include "libmigrate/proc/mapping_list.h"

namespace migrate::inspect {

inline void refuse(Refusals& refusals, std::string_view code, std::string object,
                   std::string_view detail = {}) {
  refusals.push_back(make_refusal(code, std::move(object), detail));
}

/// The process under inspection, and what is kept open of it: a descriptor of a /proc directory
/// never leads to another process, even when the pid is used again.
struct ProcessView {
  pid_t pid = 0;
  std::uint32_t inner_pid = 0;
  KnownObjects known;
  UniqueFd directory;  ///< /proc/PID
  UniqueFd root;       ///< /proc/PID/root
  UniqueFd pidfd;
  UniqueFd maps;
  UniqueFd pagemap;
  UniqueFd status;
  UniqueFd tasks;           ///< /proc/PID/task
  UniqueFd descriptors;     ///< /proc/PID/fd
  UniqueFd details;         ///< /proc/PID/fdinfo
  std::string status_text;  ///< Content of status, read once per inspection.
  std::map<std::string, std::string> own_namespaces;  ///< Of this process: name to link.
  std::optional<MappingList> list;        ///< Where it has much memory and the kernel lets us.
  UniqueFd load;                          ///< /proc/loadavg, whose last word is the newest pid
  std::set<std::string> files_as_memory;  ///< Paths: carry_as_memory().
};

/// Identifies a mapped object by what maps shows of it: device, inode, name.
struct MappedKey {
  std::string device;
  std::uint64_t inode = 0;
  std::string name;
  auto operator<=>(const MappedKey&) const = default;
};

/// Device and inode as stat gives them.
using StatKey = std::pair<std::uint64_t, std::uint64_t>;

/// What one inspection found out about objects that later inspections meet again.
struct Findings {
  std::map<MappedKey, std::uint32_t> files;            ///< Index into Objects.mapped_files.
  std::map<MappedKey, std::uint32_t> mapped_memories;  ///< Index into Objects.shared_memories.
  std::map<StatKey, std::uint32_t> memories;           ///< The same.
  std::map<std::string, std::uint64_t> streams;        ///< Relays by object, to the stream id.
  // Objects that nobody outside was found to hold; only new ones are looked for again.
  std::set<std::uint64_t> private_pipes;
  std::set<StatKey> private_memories;
  std::set<StatKey> private_terminals;
  std::set<MappedKey> private_mappings;
  std::map<std::string, std::uint64_t> shared_files;  ///< By shared_file_key(), to the shared_id.
  std::uint64_t newest_pid = 0;
  std::int64_t newest_pid_us = 0;  ///< now_us(), before it was asked for.
  // What it would lose, where finding that out again would cost too much.
  std::string groups_text;  ///< Of /proc/PID/cgroup.
  std::vector<std::string> group_limits;
  std::vector<std::string> memory_policies;
  bool may_have_policies = true;
  std::map<pid_t, std::vector<std::string>> speculation;  ///< Of each thread.
  std::map<pid_t, std::vector<std::string>> io_flusher;   ///< The same.
  std::map<pid_t, std::vector<std::string>> timer_slack;  ///< The same.
  std::string maps_text;  ///< Of the draft, if its mappings were all accepted; else empty.
};

/// Objects that nobody outside may hold, met in one inspection; values say what for, in a refusal.
struct SharedObjects {
  struct Mapped {
    bool writable = false;
    std::string description;
  };
  std::map<MappedKey, Mapped> mappings;
  std::map<StatKey, std::string> memories;
  std::map<std::uint64_t, std::string> pipes;
  /// A pseudo-terminal.
  struct Terminal {
    bool is_of_session = false;  ///< Of that which the process leads.
    std::string description;
  };
  std::map<StatKey, Terminal> terminals;  ///< By st_dev and st_rdev of the slave side.
  /// Open files whose state no two processes can share, by one descriptor each.
  struct Stateful {
    std::uint32_t number = 0;
    std::string link;
  };
  std::vector<Stateful> stateful;
};

}  // namespace migrate::inspect
