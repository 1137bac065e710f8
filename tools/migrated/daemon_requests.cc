#include "tools/migrated/daemon_requests.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "libmigrate/state/global_name.h"
#include "libmigrate/state/registry.h"
#include "tools/migrated/find_process.h"
#include "tools/migrated/fork_requests.h"
#include "tools/migrated/links_of.h"
#include "tools/migrated/peer_request.h"
#include "tools/migrated/record_json.h"
#include "transport/wait.h"

namespace migrate {
namespace {

using nlohmann::json;

constexpr int kQueryTimeoutMs = 1000;
constexpr int kShortestPollMs = 10;
constexpr int kLongestPollMs = 250;

Result<json> list_processes(const LocalService& service, const Request& request, bool wants_all) {
  Registry registry = MIGRATE_TRY(Registry::open(service.context.state_directory));
  json processes = json::array();
  for (const ProcessRecord& record : MIGRATE_TRY(registry.list())) {
    const bool shown = wants_all || is_live(record.state) || record.state == ProcessState::kLost;
    if (shown && may_see(request, record)) {
      processes.push_back(record_json(record, service.context.host_name));
    }
  }
  return json{{"processes", std::move(processes)}};
}

Result<json> show_process(const LocalService& service, const Request& request) {
  Registry registry = MIGRATE_TRY(Registry::open(service.context.state_directory));
  const std::vector<ProcessRecord> records = MIGRATE_TRY(find_records(registry, request));
  if (records.empty()) {
    return fail(unknown_process(request));
  }
  const auto with_links = [&](const ProcessRecord& record) {
    json object = record_json(record, service.context.host_name);
    if (json links = links_of(service.context.state_directory, record); !links.empty()) {
      object["links"] = std::move(links);
    }
    return object;
  };
  json shown = with_links(records.front());
  for (std::size_t i = 1; i < records.size(); ++i) {
    shown["other_roles"].push_back(with_links(records[i]));
  }
  return shown;
}

/// What the client is told of itself: where it is, and what names it everywhere. What was found by
/// its pid is of the client if that is there afterwards.
Result<json> where_it_is(const LocalService& service, const Request& request) {
  Registry registry = MIGRATE_TRY(Registry::open(service.context.state_directory));
  const std::string own = service.context.own_address.to_string();
  json told = {
      {"host", service.context.host_name},
      {"address", own},
      {"home", own},
      {"moves", 0},
      {"identity", to_string(first_global_name(request.client.pid(), service.context.host_name))}};
  const std::optional<ProcessRecord> record = MIGRATE_TRY(registry.find_pid(request.client.pid()));
  MIGRATE_TRY(request.client.must_be_there());
  if (!record) {
    return told;
  }
  if (record->role == ProcessRole::kGuest) {
    told["home"] = record->home;
    told["moves"] = record->moves;
    told["identity"] = record->identity;
    told["owed_pages"] = record->owed_pages;
  }
  told["process"] = record->process;
  told["state"] = to_string(record->state);
  if (record->has_worker()) {
    told["worker"] = record->worker;
  }
  return told;
}

Result<json> list_hosts(const LocalService& service) {
  json own = host_facts(service.context);
  own["state"] = "this host";
  json hosts = json::array({std::move(own)});
  std::set<std::string> addresses(service.peers.begin(), service.peers.end());
  Registry registry = MIGRATE_TRY(Registry::open(service.context.state_directory));
  for (const ProcessRecord& record : MIGRATE_TRY(registry.list())) {
    addresses.insert(record.home);
    addresses.insert(record.where);
  }
  std::set<std::string> asked = {service.context.own_address.to_string()};
  for (const std::string& text : addresses) {
    const Result<Address> address = Address::parse(text);
    if (text.empty() || (address && !asked.insert(address->to_string()).second)) {
      continue;
    }
    const Result<json> facts = address
                                   ? query_host(service.context.trust, *address, kQueryTimeoutMs)
                                   : Result<json>(fail(address.error()));
    json host = facts ? *facts : json{{"error", {{"message", facts.error().message()}}}};
    host["address"] = text;
    host["state"] = facts ? "up" : "unreachable";
    hosts.push_back(std::move(host));
  }
  return json{{"hosts", std::move(hosts)}};
}

/// How a wait ends, if it does now: exit code and an error text.
struct WaitEnd {
  int exit_code = MIGRATE_DONE;
  std::string error;
};

std::optional<WaitEnd> wait_end(const ProcessRecord& record, bool for_exit) {
  if (const std::string reason = lost_reason(record); !reason.empty()) {
    return WaitEnd{MIGRATE_LOST, "the process was lost: " + reason};
  }
  switch (record.state) {
    case ProcessState::kExited:
      return WaitEnd{};
    case ProcessState::kChildrenLeft:
      if (for_exit) {
        return WaitEnd{};
      }
      break;
    case ProcessState::kFailed:
      return WaitEnd{MIGRATE_FAILED, "the move failed; the process runs on as if never moved"};
    case ProcessState::kMoving:
    case ProcessState::kRunningHere:
    case ProcessState::kAway:
    case ProcessState::kDone:
    case ProcessState::kLost:  // Told above.
      break;
  }
  const bool is_owed_nothing =
      record.state == ProcessState::kDone ||
      (record.state == ProcessState::kRunningHere && record.owed_pages == 0);
  if (!for_exit && is_owed_nothing) {
    return WaitEnd{};
  }
  if (!record.has_worker()) {
    return WaitEnd{MIGRATE_ERROR, "its worker " + std::to_string(record.worker) +
                                      " has ended; the log of migrated says why"};
  }
  return std::nullopt;
}

/// The row that knows most of a process's fate: home's.
const ProcessRecord& fate_of(const std::vector<ProcessRecord>& records) {
  for (const ProcessRecord& record : records) {
    if (record.role == ProcessRole::kHome) {
      return record;
    }
  }
  return records.front();
}

Result<void> wait_process(const LocalService& service, Request& request, bool for_exit,
                          EventSink& client) {
  Registry registry = MIGRATE_TRY(Registry::open(service.context.state_directory));
  for (int pause_ms = kShortestPollMs;; pause_ms = std::min(pause_ms * 2, kLongestPollMs)) {
    const std::vector<ProcessRecord> records = MIGRATE_TRY(find_records(registry, request));
    if (records.empty()) {
      return fail(unknown_process(request));
    }
    const ProcessRecord& record = fate_of(records);
    request.process = {.id = record.process};  // a pid may be someone else's by and by
    if (const auto end = wait_end(record, for_exit)) {
      json result = record_json(record, service.context.host_name);
      if (!end->error.empty()) {
        result["error"] = {{"code", "state"}, {"message", end->error}};
      }
      client.finish(end->exit_code, std::move(result));
      return {};
    }
    if (MIGRATE_TRY(wait_for(client.descriptor(), POLLIN | POLLRDHUP, Deadline(pause_ms)))) {
      return {};  // the client is gone
    }
  }
}

/// A function for each kind of request, which answers it.
struct DaemonAnswers {
  const LocalService& service;
  Request& request;
  EventSink& client;

  Result<void> operator()(const PsRequest& ps) const {
    return answer(list_processes(service, request, ps.all));
  }
  Result<void> operator()(const ShowRequest& /*show*/) const {
    return answer(show_process(service, request));
  }
  Result<void> operator()(const WaitRequest& wait) const {
    return wait_process(service, request, wait.wait_for == WaitFor::kExit, client);
  }
  Result<void> operator()(const ForkRequest& fork) const {
    return fork_process(service, request, fork, client);
  }
  Result<void> operator()(const HostsRequest& /*hosts*/) const {
    return answer(list_hosts(service));
  }
  Result<void> operator()(const PingRequest& /*ping*/) const {
    return answer(json{{"pid", getppid()}, {"host", service.context.host_name}});
  }
  Result<void> operator()(const HereRequest& /*here*/) const {
    return answer(where_it_is(service, request));
  }

 private:
  Result<void> answer(Result<json> told) const {
    client.finish(MIGRATE_DONE, MIGRATE_TRY(std::move(told)));
    return {};
  }
};

}  // namespace

Result<void> carry_out(const LocalService& service, Request& request, const DaemonRequest& wanted,
                       EventSink& client) {
  return std::visit(DaemonAnswers{service, request, client}, wanted);
}

}  // namespace migrate
