#include "tools/migrated/find_process.h"

#include <signal.h>

#include <cerrno>
#include <utility>

#include "libmigrate/state/global_name.h"

namespace migrate {
namespace {

Error not_permitted(const std::string& object) {
  return make_error(ErrorCode::kRefused, "use", object,
                    "it belongs to another user; ask its owner or root");
}

}  // namespace

bool may_see(const Asker& asker, const ProcessRecord& record) {
  return asker.is_root() || record.uid == asker.user;
}

Result<std::vector<ProcessRecord>> find_records(Registry& registry, const Request& request) {
  std::string id = request.process.id;
  const pid_t pid = request.pid();
  if (!request.process.given()) {
    return fail(usage_error("find the process", "none given", "give a pid or an id"));
  }
  if (id.empty()) {
    const std::optional<ProcessRecord> live = MIGRATE_TRY(registry.find_pid(pid));
    if (live) {
      id = live->process;
    } else {  // the last one that had this pid
      for (const ProcessRecord& record : MIGRATE_TRY(registry.list())) {
        id = record.pid == pid ? record.process : id;
      }
    }
    if (id.empty()) {
      return std::vector<ProcessRecord>();
    }
  }
  if (is_global_name(id)) {
    std::vector<ProcessRecord> named =
        MIGRATE_TRY(registry.find_identity(to_string(MIGRATE_TRY(parse_global_name(id)))));
    std::erase_if(named, [&](const ProcessRecord& record) {
      return record.state == ProcessState::kFailed || !may_see(request.asker, record);
    });
    return named;
  }
  // Ids of others are not told, nor how they begin; pids everybody knows.
  const bool by_pid = request.process.id.empty();
  std::vector<ProcessRecord> records = MIGRATE_TRY(registry.find_process(
      id, [&](const ProcessRecord& record) { return by_pid || may_see(request.asker, record); }));
  for (const ProcessRecord& record : records) {
    if (!may_see(request.asker, record)) {
      return fail(not_permitted("process " + (by_pid ? std::to_string(pid) : id)));
    }
  }
  return records;
}

Error unknown_process(const Request& request) {
  const std::string& id = request.process.id;
  const pid_t pid = request.pid();
  const bool is_number = id.find_first_not_of("0123456789") == std::string::npos;
  const bool no_such_pid = id.empty() ? kill(pid, 0) != 0 && errno == ESRCH : is_number;
  return make_error(ErrorCode::kNotFound, "find the process",
                    id.empty() ? "with pid " + std::to_string(pid) : id,
                    std::string(no_such_pid ? "no process of this host has this pid, and " : "") +
                        "this host has not moved or received it; see `migratectl ps`, or ask its "
                        "home");
}

Result<std::optional<ProcessRecord>> find_keeper(Registry& registry, const Request& request) {
  if (request.process.id.empty()) {
    std::optional<ProcessRecord> live = MIGRATE_TRY(registry.find_pid(request.pid()));
    if (live && !may_see(request.asker, *live)) {
      return fail(not_permitted("process " + std::to_string(request.pid())));
    }
    return live;
  }
  const std::vector<ProcessRecord> records = MIGRATE_TRY(find_records(registry, request));
  if (records.empty()) {
    return fail(unknown_process(request));
  }
  // Where it runs here, its own worker knows best; else the deputy, which knows where it is.
  std::optional<ProcessRecord> keeper;
  for (const ProcessRecord& record : records) {
    const bool runs_here = record.state == ProcessState::kRunningHere;
    if (is_live(record.state) && (!keeper || runs_here)) {
      keeper = record;
    }
  }
  if (!keeper) {
    return fail(make_error(ErrorCode::kNotFound, "find the process", records.front().process,
                           "it is over: " + std::string(to_string(records.front().state))));
  }
  return keeper;
}

}  // namespace migrate
