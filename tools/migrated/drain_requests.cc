#include "tools/migrated/drain_requests.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "base/file.h"
#include "base/printable.h"
#include "libmigrate/proc/proc_text.h"
#include "libmigrate/state/drain_mark.h"
#include "libmigrate/state/registry.h"
#include "tools/migrated/record_json.h"

namespace migrate {
namespace {

using nlohmann::json;

// Of people, as login.defs(5) has them by default; others are of the system.
constexpr std::uint64_t kFirstUser = 1000;
constexpr std::uint64_t kLastUser = 60000;

std::string of_process(pid_t pid, std::string_view name) {
  return "/proc/" + std::to_string(pid) + "/" + std::string(name);
}

/// What decides about a process, as /proc has it.
struct Facts {
  pid_t pid = 0;
  pid_t parent = 0;
  std::uint64_t user = 0;
  std::uint64_t memory_bytes = 0;  ///< That a move would have to send.
};

/// Nothing if it has ended, or is a thread of the kernel.
std::optional<Facts> facts_of(pid_t pid) {
  const auto status = read_file(of_process(pid, "status"));
  if (!status || !find_field(*status, "VmRSS:")) {
    return std::nullopt;
  }
  return Facts{.pid = pid,
               .parent = static_cast<pid_t>(number_field(*status, "PPid:")),
               .user = number_field(*status, "Uid:"),
               .memory_bytes = kKibibyte * (number_field(*status, "RssAnon:") +
                                            number_field(*status, "RssShmem:") +
                                            number_field(*status, "VmSwap:"))};
}

/// Its command line, for people.
std::string command_of_process(pid_t pid) {
  std::string line = read_file(of_process(pid, "cmdline")).value_or("");
  while (!line.empty() && line.back() == '\0') {
    line.pop_back();
  }
  std::ranges::replace(line, '\0', ' ');
  return printable(line);
}

bool is_in_our_namespaces(pid_t pid) {
  return std::ranges::all_of(std::array{"ns/mnt", "ns/net", "ns/pid", "ns/uts"}, [&](auto name) {
    const auto own = read_link(of_process(::getpid(), name));
    const auto its = read_link(of_process(pid, name));
    return own && its && *own == *its;
  });
}

/// Those that the process depends on that asks, and itself: a shell that is moved away takes the
/// terminal of who drains with it.
std::set<pid_t> line_of(pid_t pid) {
  std::set<pid_t> line;
  while (pid > 0 && line.insert(pid).second) {
    const auto facts = facts_of(pid);
    pid = facts ? facts->parent : 0;
  }
  return line;
}

Result<std::set<std::uint64_t>> users_of(const DrainRequest& wanted) {
  std::set<std::uint64_t> users;
  for (const std::string& text : wanted.users) {
    const auto number = parse_number(text);
    if (!number) {
      return fail(usage_error("drain", "user " + text, "name users by their numbers"));
    }
    users.insert(*number);
  }
  return users;
}

json process_json(const Facts& facts, std::string target, std::string command) {
  return {{"target", std::move(target)},
          {"pid", facts.pid},
          {"uid", facts.user},
          {"command", std::move(command)},
          {"memory_bytes", facts.memory_bytes}};
}

/// All that were moved at least once and run here, or are away from here. `known`: their pids here,
/// and those of who looks after them.
void add_moved(const std::vector<ProcessRecord>& records, const std::string& own_address,
               std::set<pid_t>& known, json& processes, json& away) {
  for (const ProcessRecord& record : records) {
    known.insert(record.pid);
    known.insert(record.worker);
    const bool is_away = record.state == ProcessState::kAway || record.state == ProcessState::kDone;
    if (record.role == ProcessRole::kHome && is_away) {
      away.push_back({{"process", record.process},
                      {"pid", record.pid},
                      {"command", printable(record.command)},
                      {"where", record.where},
                      {"owed_pages", record.owed_pages}});
    }
    const auto facts = facts_of(record.pid);
    if (record.role != ProcessRole::kGuest || record.state != ProcessState::kRunningHere ||
        !facts) {
      continue;
    }
    json process = process_json(*facts, record.process, printable(record.command));
    if (!record.home.empty() && record.home != own_address) {
      process["home"] = record.home;
    }
    processes.push_back(std::move(process));
  }
}

/// Those that were never moved.
Result<void> add_others(const std::set<pid_t>& known, const std::set<std::uint64_t>& users,
                        pid_t asker, json& processes, std::uint64_t& in_containers) {
  const std::set<pid_t> line = line_of(asker);
  const auto own_program = read_link("/proc/self/exe");
  for (const std::string& name : MIGRATE_TRY(list_directory("/proc"))) {
    const auto pid = static_cast<pid_t>(parse_number(name).value_or(0));
    if (pid <= 1 || known.contains(pid) || line.contains(pid)) {
      continue;
    }
    const auto facts = facts_of(pid);
    const bool counts = facts && (users.contains(facts->user) ||
                                  (facts->user >= kFirstUser && facts->user <= kLastUser));
    const auto program = counts ? read_link(of_process(pid, "exe")) : own_program;
    if (!program || (own_program && *program == *own_program)) {
      continue;  // It ends, or is of this daemon.
    }
    if (is_in_our_namespaces(pid)) {
      processes.push_back(process_json(*facts, std::to_string(pid), command_of_process(pid)));
    } else {
      ++in_containers;
    }
  }
  return {};
}

}  // namespace

Result<json> drain_host(const LocalService& service, const Request& request,
                        const DrainRequest& wanted) {
  const WorkerContext& context = service.context;
  if (!request.asker.is_root()) {
    return fail(make_error(ErrorCode::kRefused, "drain", context.host_name,
                           "only root decides which processes a host has"));
  }
  const std::set<std::uint64_t> users = MIGRATE_TRY(users_of(wanted));
  if (wanted.action != DrainAction::kTell) {
    MIGRATE_TRY(set_drained(context.state_directory, wanted.action == DrainAction::kBegin));
  }
  Registry registry = MIGRATE_TRY(Registry::open(context.state_directory));
  std::set<pid_t> known;
  json processes = json::array();
  json away = json::array();
  add_moved(MIGRATE_TRY(registry.list(true)), context.own_address.to_string(), known, processes,
            away);
  std::uint64_t in_containers = 0;
  MIGRATE_TRY(add_others(known, users, request.client.pid(), processes, in_containers));
  return json{{"host", context.host_name},
              {"address", context.own_address.to_string()},
              {"drained", MIGRATE_TRY(is_drained(context.state_directory))},
              {"processes", std::move(processes)},
              {"in_containers", in_containers},
              {"away", std::move(away)}};
}

}  // namespace migrate
