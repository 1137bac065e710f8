#include "libmigrate/inspect/internal/outsiders.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <linux/kcmp.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>

#include "base/clock.h"
#include "base/file.h"
#include "libmigrate/inspect/internal/shared_files.h"
#include "libmigrate/proc/children.h"
#include "libmigrate/proc/mapping_query.h"
#include "libmigrate/proc/proc_text.h"

namespace migrate::inspect {
namespace {

// As maps shows it.
std::string shown_device(std::uint32_t device_major, std::uint32_t device_minor) {
  return fmt::format("{:02x}:{:02x}", device_major, device_minor);
}

// What to look for in all other processes.
struct Wanted {
  std::set<std::uint64_t> pipes;
  std::set<StatKey> memories;
  // By device and inode as maps shows them: whether the process itself may write. A mapping outside
  // counts if it is shared and either may write.
  std::map<std::pair<std::string, std::uint64_t>, bool> mappings;

  std::set<StatKey> terminals;  // As SharedObjects.terminals.
  bool session = false;         // Whoever is in the session that the process leads, too.

  // Some of the memories are files with a name.
  bool named = false;

  // The same memories, as maps shows them: whoever maps them, even privately, sees what is written.
  std::map<std::pair<std::string, std::uint64_t>, StatKey> mapped_memories;

  bool empty() const { return !has_descriptors() && mappings.empty(); }
  bool has_descriptors() const { return !pipes.empty() || !memories.empty() || !terminals.empty(); }
  void add_terminal(const StatKey& key, bool is_of_session) {
    terminals.insert(key);
    session = session || is_of_session;
  }
  void add_memory(const StatKey& key) {
    memories.insert(key);
    mapped_memories.emplace(std::pair(shown_device(major(key.first), minor(key.first)), key.second),
                            key);
  }
};

// Who holds it: one process each, the first found.
struct Outsiders {
  std::map<std::uint64_t, pid_t> pipes;
  std::map<StatKey, pid_t> memories;
  std::map<StatKey, pid_t> terminals;
  pid_t of_session = 0;  // 0: nobody
  std::map<std::pair<std::string, std::uint64_t>, pid_t> mappings;
};

std::vector<pid_t> all_processes() {
  std::vector<pid_t> pids;
  for (const std::string& name : list_directory("/proc").value_or(std::vector<std::string>())) {
    if (const auto pid = parse_number(name)) {
      pids.push_back(static_cast<pid_t>(*pid));
    }
  }
  return pids;
}

void search_descriptors(pid_t pid, const std::string& directory, const Wanted& wanted,
                        Outsiders& found) {
  if (!wanted.has_descriptors()) {
    return;
  }
  const auto opened = open_file(directory + "/fd", O_RDONLY | O_DIRECTORY);
  if (!opened) {
    return;
  }
  const int descriptors = opened->get();
  for (const std::uint32_t number :
       numbered_entries(descriptors, "fd").value_or(std::vector<std::uint32_t>())) {
    const std::string name = std::to_string(number);
    const auto link = read_link_at(descriptors, name);
    if (!link) {
      continue;
    }
    struct stat terminal {};
    if (!wanted.terminals.empty() && link->starts_with("/dev/") &&
        ::fstatat(descriptors, name.c_str(), &terminal, 0) == 0 &&
        wanted.terminals.contains({terminal.st_dev, terminal.st_rdev})) {
      found.terminals.emplace(StatKey(terminal.st_dev, terminal.st_rdev), pid);
    }
    if (link->starts_with("pipe:[")) {
      const auto inode = parse_number(std::string_view(*link).substr(6, link->size() - 7));
      if (inode && wanted.pipes.contains(*inode)) {
        found.pipes.emplace(*inode, pid);
      }
    } else if ((link->ends_with(" (deleted)") || (wanted.named && link->starts_with('/'))) &&
               !wanted.memories.empty()) {
      struct stat status {};
      if (::fstatat(descriptors, name.c_str(), &status, 0) == 0 &&
          wanted.memories.contains({status.st_dev, status.st_ino})) {
        found.memories.emplace(std::pair(status.st_dev, status.st_ino), pid);
      }
    }
  }
}

// A host has many processes, and few of them share what they map. False: this kernel does not tell.
bool search_shared_mappings(pid_t pid, const std::string& directory, const Wanted& wanted,
                            Outsiders& found) {
  const auto maps = open_file(directory + "/maps", O_RDONLY);
  if (!maps) {
    return true;
  }
  for (std::uint64_t from = 0;;) {
    const auto mapping = find_shared_file_mapping(maps->get(), from);
    if (!mapping || !*mapping) {
      return mapping || mapping.error().code != ErrorCode::kUnsupported;
    }
    const SharedFileMapping& shared = **mapping;
    from = shared.end;
    const auto match = wanted.mappings.find(
        {shown_device(shared.device_major, shared.device_minor), shared.inode});
    if (match != wanted.mappings.end() && (match->second || shared.writable)) {
      found.mappings.emplace(match->first, pid);
    }
  }
}

void search_mappings(pid_t pid, const std::string& directory, const Wanted& wanted,
                     Outsiders& found) {
  if (wanted.mappings.empty() && wanted.mapped_memories.empty()) {
    return;
  }
  if (wanted.mapped_memories.empty() && search_shared_mappings(pid, directory, wanted, found)) {
    return;
  }
  const auto text = read_file(directory + "/maps");
  if (!text) {
    return;
  }
  const auto entries = parse_maps(*text);
  if (!entries) {
    return;
  }
  for (const MapsEntry& entry : *entries) {
    if (entry.inode == 0) {
      continue;
    }
    const auto memory = wanted.mapped_memories.find({entry.device, entry.inode});
    if (memory != wanted.mapped_memories.end() &&
        (wanted.named || entry.name.ends_with(" (deleted)"))) {
      found.memories.emplace(memory->second, pid);
    }
    if (!entry.shared) {
      continue;
    }
    const auto match = wanted.mappings.find({entry.device, entry.inode});
    if (match != wanted.mappings.end() && (match->second || (entry.protection & 2U) != 0)) {
      found.mappings.emplace(match->first, pid);
    }
  }
}

void search_session(pid_t pid, pid_t leader, const std::string& directory, const Wanted& wanted,
                    Outsiders& found) {
  constexpr std::size_t kSession = 3;  // of stat_fields
  if (!wanted.session || found.of_session != 0) {
    return;
  }
  const std::string text = read_file(directory + "/stat").value_or("");
  const auto fields = stat_fields(text);
  if (fields.size() > kSession &&
      parse_number(fields[kSession]) == static_cast<std::uint64_t>(leader)) {
    found.of_session = pid;
  }
}

bool same_object(pid_t one, pid_t other, int type) {
  return ::syscall(SYS_kcmp, one, other, type, 0, 0) == 0;
}

// `may_be_child`: it is not known that the process has none.
void check_relative(const ProcessView& view, pid_t other, bool may_be_child, Refusals& refusals) {
  if (other == view.pid) {
    return;
  }
  if (!may_be_child && !same_object(view.pid, other, KCMP_VM) &&
      !same_object(view.pid, other, KCMP_FILES) && !same_object(view.pid, other, KCMP_FS)) {
    return;  // Of most processes there is no more to be asked.
  }
  const auto text = read_file("/proc/" + std::to_string(other) + "/stat");
  if (!text) {
    return;
  }
  const auto fields = stat_fields(*text);
  if (fields.size() < 2) {
    return;
  }
  // Ids of threads are found in /proc too, but not listed; those of the process itself are no
  // child.
  const bool thread = ::faccessat(view.tasks.get(), std::to_string(other).c_str(), F_OK, 0) == 0;
  if (thread) {
    return;
  }
  if (parse_number(fields[1]) == static_cast<std::uint64_t>(view.pid)) {
    refuse(refusals, "CHILDREN", describe_process(other));
  } else if (fields[0] != "Z" && fields[0] != "X" &&
             (same_object(view.pid, other, KCMP_VM) || same_object(view.pid, other, KCMP_FILES))) {
    refuse(refusals, "SHARED_ADDRESS_SPACE", describe_process(other));
  } else if (fields[0] != "Z" && fields[0] != "X" && same_object(view.pid, other, KCMP_FS)) {
    refuse(refusals, "SHARED_ADDRESS_SPACE", describe_process(other), "the working directory");
  }
}

Outsiders find_outsiders(const ProcessView& view, const Wanted& wanted) {
  Outsiders found;
  if (wanted.empty()) {
    return found;
  }
  const pid_t self = ::getpid();
  for (const pid_t pid : all_processes()) {
    if (pid == view.pid || pid == self) {
      continue;
    }
    const std::string directory = "/proc/" + std::to_string(pid);
    search_descriptors(pid, directory, wanted, found);
    search_mappings(pid, directory, wanted, found);
    search_session(pid, view.pid, directory, wanted, found);
  }
  return found;
}

// A thread or a child of this process, which has duplicates of what the other process has open.
bool is_ours(std::string_view status) {
  const auto self = static_cast<std::uint64_t>(::getpid());
  return number_field(status, "Tgid:") == self || number_field(status, "PPid:") == self;
}

bool runs_our_program(const std::string& directory) {
  struct stat theirs {};
  struct stat own {};
  return ::stat((directory + "/exe").c_str(), &theirs) == 0 &&
         ::stat("/proc/self/exe", &own) == 0 && theirs.st_dev == own.st_dev &&
         theirs.st_ino == own.st_ino;
}

// Root's, running our program, and the first of a PID namespace.
bool is_init_of_cell(const std::string& directory, std::string_view status) {
  constexpr std::uint64_t kNobody = ~std::uint64_t{0};
  return last_number_field(status, "NSpid:") == 1 &&
         number_field(status, "Uid:", 10, kNobody) == 0 && runs_our_program(directory);
}

// The seed of a cell of this same machine, into which the destination has mapped the files of the
// draft: it has not run yet, and never will beside the process. It is told by its parent, the init
// of the cell: root's, running our program, and first of a PID namespace that is not the process's,
// so that no orphan of the process has it as parent.
bool is_seed(const ProcessView& view, const std::string& directory, std::string_view status) {
  const std::string init = fmt::format("/proc/{}", number_field(status, "PPid:"));
  const auto init_status = read_file(init + "/status");
  const auto space = read_link(directory + "/ns/pid");
  const auto init_space = read_link(init + "/ns/pid");
  const auto own_space = read_link(fmt::format("/proc/{}/ns/pid", view.pid));
  if (!init_status || !space || !init_space || !own_space || *space != *init_space ||
      *space == *own_space) {
    return false;
  }
  return is_init_of_cell(init, *init_status);
}

// Whether all pids may have been given since, so that a newcomer may have any: there is none in a
// microsecond, for which the kernel holds its lock of all processes longer.
bool may_be_used_up(std::int64_t since_us) {
  const std::string most = read_file("/proc/sys/kernel/pid_max").value_or("");
  std::string_view text = most;
  return now_us() - since_us >=
         static_cast<std::int64_t>(parse_number(take_line(text)).value_or(0));
}

// Those of the terminals that somebody outside has.
std::set<StatKey> refuse_terminals(const SharedObjects& objects, const Outsiders& found,
                                   Refusals& refusals) {
  std::set<StatKey> refused;
  for (const auto& [key, terminal] : objects.terminals) {
    const auto holder = found.terminals.find(key);
    if (holder != found.terminals.end()) {
      refuse(refusals, "TERMINAL_PAIR", terminal.description,
             describe_process(holder->second) + " has it open");
    } else if (terminal.is_of_session && found.of_session != 0) {
      refuse(refusals, "TERMINAL_PAIR", terminal.description,
             describe_process(found.of_session) + " is in its session");
    } else {
      continue;
    }
    refused.insert(key);
  }
  return refused;
}

// A process that was born since the draft has whatever its parent had: one that is no child any
// more may be a grandchild of ours. One that was there before may share what is in `shared`, by
// shared_file_key(); null: nothing.
void check_newcomer(const ProcessView& view, const SharedObjects& objects, const Wanted& wanted,
                    pid_t other, const std::map<std::string, std::uint64_t>* shared,
                    Refusals& refusals) {
  const std::string directory = "/proc/" + std::to_string(other);
  const auto status = read_file(directory + "/status");
  if (!status || is_ours(*status) ||
      ::faccessat(view.tasks.get(), std::to_string(other).c_str(), F_OK, 0) == 0) {
    return;
  }
  Outsiders found;
  search_descriptors(other, directory, wanted, found);
  search_mappings(other, directory, wanted, found);
  search_session(other, view.pid, directory, wanted, found);
  if (!found.mappings.empty() && is_seed(view, directory, *status)) {
    found.mappings.clear();
  }
  for (const auto& [inode, pid] : found.pipes) {
    refuse(refusals, "PIPE_SHARED", objects.pipes.at(inode), describe_process(pid));
  }
  for (const auto& [key, pid] : found.memories) {
    refuse(refusals, "SHARED_MEMORY_OUTSIDE", objects.memories.at(key), describe_process(pid));
  }
  refuse_terminals(objects, found, refusals);
  for (const auto& [key, mapped] : objects.mappings) {
    if (found.mappings.contains({key.device, key.inode})) {
      refuse(refusals, "SHARED_MEMORY_OUTSIDE", mapped.description, describe_process(other));
    }
  }
  const auto opened = open_file(directory + "/fd", O_RDONLY | O_DIRECTORY);
  if (!opened || objects.stateful.empty()) {
    return;
  }
  for (const std::uint32_t number :
       numbered_entries(opened->get(), "fd").value_or(std::vector<std::uint32_t>())) {
    const auto link = read_link_at(opened->get(), std::to_string(number));
    for (const SharedObjects::Stateful& own : objects.stateful) {
      const bool may_share =
          shared != nullptr && shared->contains(shared_file_key(own.number, own.link));
      if (link && *link == own.link && !may_share &&
          ::syscall(SYS_kcmp, view.pid, other, KCMP_FILE, own.number, number) == 0) {
        refuse(refusals, "SHARED_FILE", fmt::format("descriptor {} -> {}", own.number, own.link),
               describe_process(other));
      }
    }
  }
}

Wanted everything(const ProcessView& view, const SharedObjects& objects) {
  Wanted wanted;
  wanted.named = !view.files_as_memory.empty();
  for (const auto& [inode, description] : objects.pipes) {
    wanted.pipes.insert(inode);
  }
  for (const auto& [key, description] : objects.memories) {
    wanted.add_memory(key);
  }
  for (const auto& [key, terminal] : objects.terminals) {
    wanted.add_terminal(key, terminal.is_of_session);
  }
  for (const auto& [key, mapped] : objects.mappings) {
    wanted.mappings[{key.device, key.inode}] |= mapped.writable;
  }
  return wanted;
}

}  // namespace

void check_outsiders(const ProcessView& view, const SharedObjects& objects, Findings& findings,
                     Refusals& refusals) {
  Wanted wanted;
  wanted.named = !view.files_as_memory.empty();
  for (const auto& [inode, description] : objects.pipes) {
    if (!findings.private_pipes.contains(inode)) {
      wanted.pipes.insert(inode);
    }
  }
  for (const auto& [key, description] : objects.memories) {
    if (!findings.private_memories.contains(key)) {
      wanted.add_memory(key);
    }
  }
  for (const auto& [key, mapped] : objects.mappings) {
    if (!findings.private_mappings.contains(key)) {
      wanted.mappings[{key.device, key.inode}] |= mapped.writable;
    }
  }
  for (const auto& [key, terminal] : objects.terminals) {
    if (!findings.private_terminals.contains(key)) {
      wanted.add_terminal(key, terminal.is_of_session);
    }
  }
  const Outsiders found = find_outsiders(view, wanted);
  const std::set<StatKey> refused = refuse_terminals(objects, found, refusals);
  for (const auto& [key, terminal] : objects.terminals) {
    if (!refused.contains(key)) {
      findings.private_terminals.insert(key);
    }
  }
  for (const auto& [inode, description] : objects.pipes) {
    if (const auto holder = found.pipes.find(inode); holder != found.pipes.end()) {
      refuse(refusals, "PIPE_SHARED", description, describe_process(holder->second));
    } else {
      findings.private_pipes.insert(inode);
    }
  }
  for (const auto& [key, description] : objects.memories) {
    if (const auto holder = found.memories.find(key); holder != found.memories.end()) {
      refuse(refusals, "SHARED_MEMORY_OUTSIDE", description,
             describe_process(holder->second) + " has it open or mapped");
    } else {
      findings.private_memories.insert(key);
    }
  }
  for (const auto& [key, mapped] : objects.mappings) {
    const auto holder = found.mappings.find({key.device, key.inode});
    if (holder != found.mappings.end()) {
      refuse(refusals, "SHARED_MEMORY_OUTSIDE", mapped.description,
             describe_process(holder->second) + " maps it");
    } else {
      findings.private_mappings.insert(key);
    }
  }
}

void check_relatives(const ProcessView& view, Refusals& refusals) {
  const auto children = children_of(view.pid);
  const bool may_be_child = !children || !children->empty();
  for (const pid_t pid : all_processes()) {
    check_relative(view, pid, may_be_child, refusals);
  }
}

void check_newcomers(const ProcessView& view, const SharedObjects& objects, Findings& findings,
                     Refusals& refusals) {
  constexpr std::uint64_t kMaxSteps = 64;
  const std::uint64_t before = findings.newest_pid;
  const std::int64_t looked_us = now_us();
  const std::uint64_t now = newest_pid(view);
  const std::size_t refused_before = refusals.size();
  if (before != 0 && now == before) {
    return;
  }
  const Wanted wanted = everything(view, objects);
  const std::set<pid_t> ancestors =
      findings.shared_files.empty() ? std::set<pid_t>() : ancestors_of(view.pid);
  const auto check_one = [&](pid_t pid) {
    check_relative(view, pid, true, refusals);
    check_newcomer(view, objects, wanted, pid,
                   ancestors.contains(pid) ? &findings.shared_files : nullptr, refusals);
  };
  if (before == 0 || now < before || now - before > kMaxSteps) {
    const bool all = before == 0 || now < before || may_be_used_up(findings.newest_pid_us);
    for (const pid_t pid : all_processes()) {
      if (all || static_cast<std::uint64_t>(pid) > before) {
        check_one(pid);
      }
    }
  } else {
    for (std::uint64_t pid = before + 1; pid <= now; ++pid) {
      check_one(static_cast<pid_t>(pid));
    }
  }
  if (refusals.size() == refused_before) {
    findings.newest_pid = now;
    findings.newest_pid_us = looked_us;
  }
}

bool is_in_cell(const ProcessView& view) {
  auto pid = static_cast<std::uint64_t>(view.pid);
  while (pid != 0) {
    const std::string directory = fmt::format("/proc/{}", pid);
    const std::string status = read_file(directory + "/status").value_or("");
    if (is_init_of_cell(directory, status)) {
      return true;
    }
    const std::uint64_t parent = number_field(status, "PPid:");
    pid = parent == pid ? 0 : parent;
  }
  return false;
}

std::uint64_t newest_pid(const ProcessView& view) {
  auto text = reread(view.load.get(), "/proc/loadavg");
  if (!text) {
    return 0;
  }
  std::string_view line = *text;
  line = take_line(line);
  const std::size_t blank = line.find_last_of(' ');
  return parse_number(line.substr(blank == std::string_view::npos ? 0 : blank + 1)).value_or(0);
}

std::string describe_process(pid_t pid) {
  std::string text = "pid " + std::to_string(pid);
  if (auto name = read_file("/proc/" + std::to_string(pid) + "/comm"); name && !name->empty()) {
    name->pop_back();
    text += " (" + *name + ")";
  }
  return text;
}

}  // namespace migrate::inspect
